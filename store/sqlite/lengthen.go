package sqlite

import "os"

// lengthen makes the log's file long enough for that many pages, with zeros, which
// SQLite takes for the end of the log. Anyone who calls it holds the writer.
//
// A commit that overwrites a part of a file waits until the disk has that part. One
// that lets the file grow also waits until the file system has noted where the new
// part is, which takes half as long again. SQLite lets the log grow with each
// commit until it is started over for the first time.
//
// If this fails, commits take a little longer, no more.
func (w *writer) lengthen(pages int64) {
	// Under the write lock: another process would write in the same place.
	if _, err := w.begin.Exec(); err != nil {
		return
	}
	defer w.rollback()
	// Closing a file drops the locks that this process has on it. SQLite has none on
	// this one: they are on the log's index and the database.
	f, err := os.OpenFile(w.file.paths[1], os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	is, err := f.Stat()
	if err != nil || !os.SameFile(is, w.file.are[1]) {
		return
	}
	// Written, not merely reserved: what is reserved has to be noted as written by the
	// first commit that uses it.
	zeros := make([]byte, 256<<10)
	for at, end := is.Size(), logBytes(pages); at < end; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), end-at)], at); err != nil {
			_ = f.Truncate(is.Size()) // the disk is full: what is left belongs to the sessions
			return
		}
	}
}
