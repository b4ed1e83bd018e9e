package sqlite

import "os"

// lengthen extends the log's file to that many pages, with zeros, which SQLite
// reads as the end of the log. The caller holds the writer.
//
// A commit that overwrites part of a file waits for the disk once. A commit
// that extends the file also waits for the file system's metadata, which takes
// half as long again. Until its first restart, SQLite extends the log with each
// commit.
//
// If this fails, commits only take a little longer.
func (w *writer) lengthen(pages int64) {
	// Under the write lock: another process would write in the same place.
	if _, err := w.begin.Exec(); err != nil {
		return
	}
	defer w.rollback()
	// Closing a file drops the process's locks on it. SQLite has none on this
	// file, only on the log's index and the database.
	f, err := os.OpenFile(w.file.paths[1], os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	is, err := f.Stat()
	if err != nil || !os.SameFile(is, w.file.are[1]) {
		return
	}
	// Write the zeros instead of reserving space: the first commit into
	// reserved space would have to update metadata.
	zeros := make([]byte, 256<<10)
	for at, end := is.Size(), logBytes(pages); at < end; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), end-at)], at); err != nil {
			_ = f.Truncate(is.Size()) // the disk is full: leave the rest to the sessions
			return
		}
	}
}
