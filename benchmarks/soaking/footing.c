/* The clock and the disk that a process stands on, changed under its feet from outside, without root.

   Loaded by LD_PRELOAD between a program and the C library (footing.py builds it and writes the page):

     FOOTING_PAGE    a file of 56 bytes, mapped: what holds at this moment, for as long as whoever writes there likes
     FOOTING_FOLDER  the "disk": only files below this folder meet a full or read-only one

     offset  bytes
          0      8  clock_ns    added to the time of day; the monotonic clocks go on as they are, as in a real jump
          8      8  room        bytes that files may still grow by; below 0: any number
         16      4  read_only   every change is refused with EROFS, also through files that are open
         20      4  asked       a number; when it has changed, the process gives its free memory back
         24      4  given_back  the number at which it last did
         28      4  (unused)
         32      8  leak        bytes that it loses then, before that; 0 afterwards
         40      8  in_use      bytes that it then has of the C library's heaps and has not given back to them
         48      8  mapped      and in blocks so large that the C library maps each by itself

   Free memory is given back when the process next looks at any clock, in Python after what is garbage there, as soon as
   its main thread gets to it. The C library's part is what protobuf has it do by itself whenever ten thousand messages
   were freed: what a process holds can be compared only after it. Free blocks between those that are in use stay all the
   same; `in_use` leaves them out.

   A disk that is full refuses growth alone: what overwrites a file's own bytes succeeds, and of a write that meets the
   end the part that fits is written, as a real one does. So records are torn in the middle of a line. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct page {
    _Atomic int64_t clock_ns;
    _Atomic int64_t room;
    _Atomic int32_t read_only;
    _Atomic int32_t asked;
    _Atomic int32_t given_back;
    int32_t unused;
    _Atomic int64_t leak;
    _Atomic int64_t in_use;
    _Atomic int64_t mapped;
};

static struct page firm = {0, -1, 0, 0, 0, 0, 0, 0, 0};
static struct page *page = &firm;
static const char *folder = "";
static size_t folder_length;
static _Atomic int32_t heard;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void map_page(void) {
    const char *path = getenv("FOOTING_PAGE"), *below = getenv("FOOTING_FOLDER");
    if (!path || !below) return;
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0) return;
    void *mapped = mmap(NULL, sizeof firm, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapped == MAP_FAILED) return;
    folder = below;
    folder_length = strlen(below);
    page = mapped;
    atomic_store(&heard, atomic_load(&page->asked));
}

/* ---------------------------------------------------------------- memory */

static void lose(int64_t bytes) {
    for (; bytes > 0; bytes -= 1024) {
        char *volatile block = malloc(1024); /* volatile: or the compiler takes out what nobody uses */
        if (block) memset(block, 1, 1024);
    }
}

static void tell(int32_t asked) {
    lose(atomic_exchange(&page->leak, 0));
    malloc_trim(0);
    struct mallinfo2 heaps = mallinfo2();
    atomic_store(&page->in_use, (int64_t)heaps.uordblks);
    atomic_store(&page->mapped, (int64_t)heaps.hblkhd);
    atomic_store(&page->given_back, asked);
}

/* What Python calls in its main thread, between two instructions. */
static int collect_and_tell(void *asked) {
    ssize_t (*collect)(void) = (ssize_t (*)(void))dlsym(RTLD_DEFAULT, "PyGC_Collect");
    if (collect) collect();
    tell((int32_t)(intptr_t)asked);
    return 0;
}

static void give_back(void) {
    int32_t asked = atomic_load(&page->asked);
    if (asked == atomic_load(&heard) || atomic_exchange(&heard, asked) == asked) return; /* another thread does it */
    int (*later)(int (*)(void *), void *) =
        (int (*)(int (*)(void *), void *))dlsym(RTLD_DEFAULT, "Py_AddPendingCall");
    if (!later || later(collect_and_tell, (void *)(intptr_t)asked) < 0) tell(asked);
}

/* ---------------------------------------------------------------- the clock */

static void shift(struct timespec *now) {
    int64_t total = now->tv_sec * INT64_C(1000000000) + now->tv_nsec + atomic_load(&page->clock_ns);
    now->tv_sec = total / 1000000000;
    now->tv_nsec = total % 1000000000;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    REAL(clock_gettime);
    int result = real(which, now);
    give_back();
    if (result == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) shift(now);
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return (time_t)-1;
    if (where) *where = exact.tv_sec;
    return exact.tv_sec;
}

/* ---------------------------------------------------------------- which files */

static int is_below(const char *path) {
    return folder_length && strncmp(path, folder, folder_length) == 0 && strchr("/", path[folder_length]);
}

static int path_is_below(int at, const char *path) {
    char whole[2 * PATH_MAX];
    if (path[0] == '/') return is_below(path);
    char link[64], base[PATH_MAX];
    if (at == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t length = readlink(link, base, sizeof base - 1);
    if (length < 0) return 0;
    base[length] = 0;
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return is_below(whole);
}

static int file_is_below(int descriptor) {
    struct stat about;
    char link[64], path[PATH_MAX];
    if (fstat(descriptor, &about) != 0 || !S_ISREG(about.st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int is_firm(void) { return !atomic_load(&page->read_only) && atomic_load(&page->room) < 0; }

/* How many of these bytes may be written from there on; -1 with errno set for none. */
static ssize_t allowed(int descriptor, size_t count, off_t from) {
    if (is_firm() || !file_is_below(descriptor)) return (ssize_t)count;
    struct stat about;
    if (fstat(descriptor, &about) != 0 || S_ISFIFO(about.st_mode)) return (ssize_t)count;
    if (atomic_load(&page->read_only)) {
        errno = EROFS;
        return -1;
    }
    int64_t inside = from < about.st_size ? about.st_size - from : 0;
    int64_t growth = (int64_t)count - inside;
    if (growth <= 0) return (ssize_t)count;
    int64_t room = atomic_load(&page->room), taken;
    do {
        if (room < 0) return (ssize_t)count; /* it was emptied meanwhile */
        taken = growth < room ? growth : room;
    } while (!atomic_compare_exchange_weak(&page->room, &room, room - taken));
    if (inside + taken == 0) {
        errno = ENOSPC;
        return -1;
    }
    return (ssize_t)(inside + taken);
}

static off_t position(int descriptor) {
    if (is_firm()) return 0;
    struct stat about;
    if (fcntl(descriptor, F_GETFL) & O_APPEND) return fstat(descriptor, &about) == 0 ? about.st_size : 0;
    off_t at = lseek(descriptor, 0, SEEK_CUR);
    return at < 0 ? 0 : at;
}

/* ---------------------------------------------------------------- writing */

ssize_t write(int descriptor, const void *data, size_t count) {
    REAL(write);
    ssize_t most = allowed(descriptor, count, position(descriptor));
    return most < 0 ? -1 : real(descriptor, data, (size_t)most);
}

ssize_t pwrite64(int descriptor, const void *data, size_t count, off64_t from) {
    REAL(pwrite64);
    ssize_t most = allowed(descriptor, count, from);
    return most < 0 ? -1 : real(descriptor, data, (size_t)most, from);
}

ssize_t pwrite(int descriptor, const void *data, size_t count, off_t from) {
    return pwrite64(descriptor, data, count, from);
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count) {
    REAL(writev);
    if (is_firm() || !file_is_below(descriptor)) return real(descriptor, pieces, count);
    return count ? write(descriptor, pieces[0].iov_base, pieces[0].iov_len) : 0; /* a short write: the caller goes on */
}

int ftruncate64(int descriptor, off64_t length) {
    REAL(ftruncate64);
    if (atomic_load(&page->read_only) && file_is_below(descriptor)) {
        errno = EROFS;
        return -1;
    }
    return real(descriptor, length);
}

int ftruncate(int descriptor, off_t length) { return ftruncate64(descriptor, length); }

int posix_fallocate64(int descriptor, off64_t from, off64_t length) {
    REAL(posix_fallocate64);
    ssize_t most = allowed(descriptor, (size_t)length, from);
    return most < 0 ? errno : most < length ? ENOSPC : real(descriptor, from, length);
}

int posix_fallocate(int descriptor, off_t from, off_t length) { return posix_fallocate64(descriptor, from, length); }

/* ---------------------------------------------------------------- names */

static int refused(int at, const char *path) {
    if (!atomic_load(&page->read_only) || !path_is_below(at, path)) return 0;
    errno = EROFS;
    return 1;
}

static int open_refused(int at, const char *path, int flags) {
    int changes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
    if (!changes && (flags & O_CREAT)) changes = faccessat(at, path, F_OK, 0) != 0;
    struct stat about; /* of a named pipe only the name is on the disk */
    if (!changes || (fstatat(at, path, &about, 0) == 0 && S_ISFIFO(about.st_mode))) return 0;
    return refused(at, path);
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int openat64(int at, const char *path, int flags, ...) {
    REAL(openat64);
    MODE(flags)
    return open_refused(at, path, flags) ? -1 : real(at, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    return openat64(at, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags)
    return openat64(AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
    MODE(flags)
    return openat64(AT_FDCWD, path, flags, mode);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return refused(AT_FDCWD, to) ? -1 : real(from, to);
}

int renameat(int from_at, const char *from, int at, const char *to) {
    REAL(renameat);
    return refused(at, to) ? -1 : real(from_at, from, at, to);
}

int unlink(const char *path) {
    REAL(unlink);
    return refused(AT_FDCWD, path) ? -1 : real(path);
}

int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    return refused(at, path) ? -1 : real(at, path, flags);
}

int rmdir(const char *path) {
    REAL(rmdir);
    return refused(AT_FDCWD, path) ? -1 : real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    return refused(AT_FDCWD, path) ? -1 : real(path, mode);
}

int mkdirat(int at, const char *path, mode_t mode) {
    REAL(mkdirat);
    return refused(at, path) ? -1 : real(at, path, mode);
}

int link(const char *from, const char *to) {
    REAL(link);
    return refused(AT_FDCWD, to) ? -1 : real(from, to);
}

int chmod(const char *path, mode_t mode) {
    REAL(chmod);
    return refused(AT_FDCWD, path) ? -1 : real(path, mode);
}
