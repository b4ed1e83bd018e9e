package pickle

import (
	"slices"
	"strings"
)

// A pickle names classes and functions. This package never imports or calls
// them, so the names refused below would be harmless here. But such a name
// shows that the pickle is an attack, so none of it is used or written back for
// a Python program that would run it.

// notData are modules, including their submodules, that no session needs: they
// run code, or access the system or the network.
var notData = words(`
	__future__ __phello__ _aix_support _asyncio _collections_abc _compat_pickle _ctypes _curses _dbm _dummy_thread
	_frozen_importlib _frozen_importlib_external _functools _gdbm _imp _interpreters _io _locale _lsprof _multiprocessing
	_opcode _operator _osx_support _pickle _posixsubprocess _pyio _signal _socket _sqlite3 _ssl _symtable
	_testcapi _thread _threading_local _tkinter _tracemalloc _warnings _weakref _winapi _winreg _xxsubinterpreters
	aiohttp aifc antigravity anydbm argparse ast asynchat asyncio asyncore atexit audiodev audioop bdb bsddb builtins
	cPickle cProfile cgi cgitb cloudpickle cmd code codecs _codecs codeop commands compileall compiler concurrent
	contextlib copy_reg copyreg crypt ctypes curses dbhash dbm dill dis distutils dl doctest dumbdbm ensurepip
	execnet fabric faulthandler fcntl filecmp fileinput fnmatch ftplib functools gc gdb gdbm genericpath getopt getpass gevent
	glob grp gzip hotshot httplib idlelib ihooks imaplib imghdr imp importlib imputil inspect invoke io joblib jsonpickle keyword
	lib2to3 linecache loky logging macpath mailbox marshal mhlib mimetools mmap modulefinder msilib msvcrt multiprocessing
	netrc nis nntplib nt ntpath nturl2path opcode operator os os2 os2emxpath paramiko parser pathos pdb pexpect pickle
	pickletools pip pipes pkg_resources pkgutil platform popen2 poplib popen posix posixfile posixpath psutil
	ptpython pty ptyprocess pudb pwd py_compile pyclbr pydoc pydoc_data readline requests resource rexec rlcompleter
	runpy sched select selectors setuptools sh shelve shlex shutil signal site sitecustomize smtpd smtplib
	sndhdr socket socketserver SocketServer spwd sqlite3 ssl stat subprocess sunau sunaudio symtable sys sysconfig syslog
	tabnanny tarfile telnetlib tempfile termios thread threading timeit tkinter Tkinter tokenize torch trace
	traceback tracemalloc tty turtle types new unittest urllib urllib2 urllib3 usercustomize venv warnings webbrowser whichdb
	winreg winsound wsgiref xdrlib xmlrpc xmlrpclib zipapp zipfile zipimport zipimporter BaseHTTPServer SimpleHTTPServer
	CGIHTTPServer SimpleXMLRPCServer DocXMLRPCServer IPython`)

// data are the exceptions: names in those modules that sessions may have.
var data = words(`
	builtins.set builtins.frozenset builtins.complex builtins.bytearray builtins.bytes builtins.object builtins.list
	builtins.dict builtins.tuple builtins.str builtins.unicode builtins.basestring builtins.int builtins.long builtins.float builtins.bool
	builtins.range builtins.xrange builtins.slice builtins.Ellipsis builtins.NotImplemented builtins.type
	builtins.iter builtins.reversed builtins.enumerate builtins.zip builtins.memoryview builtins.len builtins.getattr
	_codecs.encode copyreg._reconstructor copyreg.__newobj__ copyreg.__newobj_ex__ functools.partial
	_operator.or_ operator.or_
	types.SimpleNamespace types.MappingProxyType types.NoneType types.GenericAlias argparse.Namespace
	io.BytesIO io.StringIO _io.BytesIO _io.StringIO xmlrpc.client.DateTime xmlrpc.client.Binary xmlrpclib.DateTime
	xmlrpclib.Binary urllib.parse.ParseResult urllib.parse.SplitResult urllib.parse.DefragResult
	urllib.parse.ParseResultBytes urllib.parse.SplitResultBytes urllib.parse.DefragResultBytes
	socket.timeout socket.error socket.gaierror socket.herror`)

func words(s string) map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(s) {
		out[w] = true
	}
	return out
}

// className returns the dotted name of a global, with its Python 3 module, and
// whether a session may name it.
func className(module, name string) (string, bool) {
	switch module {
	case "__builtin__", "exceptions":
		module = "builtins"
	case "copy_reg":
		module = "copyreg"
	}
	full := module + "." + name
	if module == "" || name == "" || data[full] {
		return full, data[full]
	}
	top, _, _ := strings.Cut(module, ".")
	if notData[top] {
		return full, (module == "builtins" || !strings.Contains(name, ".")) && isException(name)
	}
	parts := strings.Split(full, ".")
	if slices.ContainsFunc(parts, isInner) || slices.ContainsFunc(strings.Split(name, "."), func(p string) bool { return notData[p] }) {
		return full, false
	}
	// namedtuple compiles text to build a class.
	return full, full != "collections.namedtuple" && !strings.HasPrefix(full, "numpy.testing.")
}

// isException reports whether a name is that of an exception's class.
func isException(name string) bool {
	for _, end := range []string{"Error", "Exception", "Warning", "Exit", "Interrupt", "Iteration", "ExceptionGroup"} {
		if strings.HasSuffix(name, end) && name[0] >= 'A' && name[0] <= 'Z' {
			return true
		}
	}
	return false
}

// isInner reports whether a part of a name accesses Python's internals, such as
// __globals__.
func isInner(part string) bool {
	return part == "" || len(part) > 4 && strings.HasPrefix(part, "__") && strings.HasSuffix(part, "__") && part != "__main__"
}
