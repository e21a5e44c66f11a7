// Records what a process does to the files of one folder: loaded by LD_PRELOAD, it stands before the C library's calls and
// writes each change, with its data and in one order for all threads, to a trace. tests/src/crash/trace.rs reads it.
// PETREL_IO_ROOT is the folder, PETREL_IO_TRACE the trace. It must never change what a call does.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 65536
static unsigned char traced[FDS];
static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
static char root[4096];
static size_t root_bytes;
static int trace = -1;

__attribute__((constructor)) static void begin(void) {
  const char *folder = getenv("PETREL_IO_ROOT"), *file = getenv("PETREL_IO_TRACE");
  if (!folder || !file || strlen(folder) >= sizeof root) return;
  strcpy(root, folder);
  root_bytes = strlen(root);
  trace = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static int inside(const char *path) {
  return trace >= 0 && path && strncmp(path, root, root_bytes) == 0 && (path[root_bytes] == '/' || path[root_bytes] == 0);
}

static int ours(int fd) { return fd >= 0 && fd < FDS && traced[fd]; }

struct __attribute__((packed)) head {
  uint8_t what;
  int32_t fd;
  uint64_t offset;
  uint32_t path_bytes, other_bytes;
  uint64_t data_bytes;
};

static void note(uint8_t what, int fd, uint64_t offset, const char *path, const char *other, const void *data, size_t bytes) {
  struct head head = {what, fd, offset, path ? strlen(path) : 0, other ? strlen(other) : 0, bytes};
  struct iovec parts[4] = {{&head, sizeof head}, {(void *)path, head.path_bytes}, {(void *)other, head.other_bytes}, {(void *)data, bytes}};
  int kept = errno;
  size_t want = sizeof head + head.path_bytes + head.other_bytes + bytes;
  // A trace with a hole would prove nothing.
  if (syscall(SYS_writev, trace, parts, 4) != (long)want) abort();
  errno = kept;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)
#define LOCK() pthread_mutex_lock(&one)
#define UNLOCK() pthread_mutex_unlock(&one)

static int opened(int fd, const char *path, int flags, int existed) {
  if (fd >= 0 && fd < FDS) {
    traced[fd] = 1;
    // Offset: 1 created, 2 truncated.
    note('O', fd, (existed ? 0 : 1) | (flags & O_TRUNC ? 2 : 0), path, 0, 0, 0);
  }
  return fd;
}

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(int, name, const char *, int, ...); \
    va_list rest; va_start(rest, flags); mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; va_end(rest); \
    if (!inside(path)) return real(path, flags, mode); \
    LOCK(); struct stat was; int existed = stat(path, &was) == 0; \
    int fd = opened(real(path, flags, mode), path, flags, existed); UNLOCK(); return fd; \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int dir, const char *path, int flags, ...) { \
    REAL(int, name, int, const char *, int, ...); \
    va_list rest; va_start(rest, flags); mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; va_end(rest); \
    if (!inside(path)) { if (ours(dir)) note('?', dir, 0, "openat", 0, 0, 0); return real(dir, path, flags, mode); } \
    LOCK(); struct stat was; int existed = stat(path, &was) == 0; \
    int fd = opened(real(dir, path, flags, mode), path, flags, existed); UNLOCK(); return fd; \
  }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
  REAL(int, close, int);
  if (!ours(fd)) return real(fd);
  LOCK(); note('C', fd, 0, 0, 0, 0, 0); traced[fd] = 0; int done = real(fd); UNLOCK(); return done;
}

ssize_t write(int fd, const void *data, size_t bytes) {
  REAL(ssize_t, write, int, const void *, size_t);
  if (!ours(fd)) return real(fd, data, bytes);
  LOCK();
  uint64_t at = lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
  ssize_t done = real(fd, data, bytes);
  if (done > 0) note('W', fd, at, 0, 0, data, done);
  UNLOCK(); return done;
}

#define PWRITE(name) \
  ssize_t name(int fd, const void *data, size_t bytes, off_t at) { \
    REAL(ssize_t, name, int, const void *, size_t, off_t); \
    if (!ours(fd)) return real(fd, data, bytes, at); \
    LOCK(); ssize_t done = real(fd, data, bytes, at); \
    if (done > 0) note('W', fd, at, 0, 0, data, done); \
    UNLOCK(); return done; \
  }
PWRITE(pwrite)
PWRITE(pwrite64)

// Calls that change files and that nobody here makes today: noted, so that the test fails and this file learns them.
#define UNKNOWN(type, name, params, args, fd) \
  type name params { REAL(type, name, params_##name); if (ours(fd)) { LOCK(); note('?', fd, 0, #name, 0, 0, 0); UNLOCK(); } return real args; }
#define params_writev int, const struct iovec *, int
#define params_pwritev int, const struct iovec *, int, off_t
#define params_fallocate int, int, off_t, off_t
#define params_posix_fallocate int, off_t, off_t
#define params_copy_file_range int, off_t *, int, off_t *, size_t, unsigned
#define params_sendfile int, int, off_t *, size_t
UNKNOWN(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), fd)
UNKNOWN(ssize_t, pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at), fd)
UNKNOWN(int, fallocate, (int fd, int mode, off_t at, off_t bytes), (fd, mode, at, bytes), fd)
UNKNOWN(int, posix_fallocate, (int fd, off_t at, off_t bytes), (fd, at, bytes), fd)
UNKNOWN(ssize_t, copy_file_range, (int from, off_t *at, int fd, off_t *to, size_t bytes, unsigned flags), (from, at, fd, to, bytes, flags), fd)
UNKNOWN(ssize_t, sendfile, (int fd, int from, off_t *at, size_t bytes), (fd, from, at, bytes), fd)

#define FTRUNCATE(name) \
  int name(int fd, off_t bytes) { \
    REAL(int, name, int, off_t); \
    if (!ours(fd)) return real(fd, bytes); \
    LOCK(); int done = real(fd, bytes); if (done == 0) note('T', fd, bytes, 0, 0, 0, 0); UNLOCK(); return done; \
  }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

// A sync holds what was written before it was called: all changes wait under the lock until it is done.
#define SYNC(name) \
  int name(int fd) { \
    REAL(int, name, int); \
    if (!ours(fd)) return real(fd); \
    LOCK(); int done = real(fd); if (done == 0) note('S', fd, 0, 0, 0, 0, 0); UNLOCK(); return done; \
  }
SYNC(fsync)
SYNC(fdatasync)

int rename(const char *from, const char *to) {
  REAL(int, rename, const char *, const char *);
  if (!inside(from) && !inside(to)) return real(from, to);
  LOCK(); int done = real(from, to); if (done == 0) note('R', -1, 0, from, to, 0, 0); UNLOCK(); return done;
}

int unlink(const char *path) {
  REAL(int, unlink, const char *);
  if (!inside(path)) return real(path);
  LOCK(); int done = real(path); if (done == 0) note('U', -1, 0, path, 0, 0, 0); UNLOCK(); return done;
}

int unlinkat(int dir, const char *path, int flags) {
  REAL(int, unlinkat, int, const char *, int);
  if (!inside(path)) { if (ours(dir)) note('?', dir, 0, "unlinkat", 0, 0, 0); return real(dir, path, flags); }
  LOCK(); int done = real(dir, path, flags); if (done == 0) note('U', -1, 0, path, 0, 0, 0); UNLOCK(); return done;
}

int mkdir(const char *path, mode_t mode) {
  REAL(int, mkdir, const char *, mode_t);
  if (!inside(path)) return real(path, mode);
  LOCK(); int done = real(path, mode); if (done == 0) note('M', -1, 0, path, 0, 0, 0); UNLOCK(); return done;
}

int link(const char *from, const char *to) {
  REAL(int, link, const char *, const char *);
  if (inside(from) || inside(to)) { LOCK(); note('?', -1, 0, "link", 0, 0, 0); UNLOCK(); }
  return real(from, to);
}
