/*
 * Stands between a process and the C library (LD_PRELOAD), so that its disk can be full or slow and
 * its wall clock wrong while the machine's are not. A small file that every process maps into memory
 * holds the current faults: writing to it changes them for all processes at once.
 *
 * FAULT_CONTROL names that file, FAULT_UNDER the directory whose files are on the bad disk.
 * Only calls through the C library's functions are changed: these are PostgreSQL's and Python's
 * readings of the clock, and PostgreSQL's writes, because it never maps its data into memory.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

/* The control file, eight bytes each; `Control` in preload.py has the same order. */
struct control {
    volatile int64_t full;    /* 1: no file can grow */
    volatile int64_t slow_us; /* delay of a write and of a flush, in microseconds */
    volatile int64_t ahead_s; /* how far the wall clock is ahead, in seconds */
    volatile int64_t met;     /* number of calls that were changed */
};

/* Naps are short, so that a wait ends soon after the disk is mended. */
#define NAP_US 5000

static struct control well;
static struct control *control = &well;
static char under[PATH_MAX];

/* The C library's own function of this name; other libraries may call ours before our constructor. */
#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void map_control(void)
{
    const char *path = getenv("FAULT_CONTROL"), *directory = getenv("FAULT_UNDER");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof well, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
        perror("preload: FAULT_CONTROL");
        _exit(1);
    }
    close(fd);
    control = mapped;
    if (directory) snprintf(under, sizeof under, "%s/", directory);
}

static void met(void)
{
    __atomic_add_fetch(&control->met, 1, __ATOMIC_RELAXED);
}

static int is_on_the_disk(int fd)
{
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || !under[0]) return 0;
    path[length] = '\0';
    return strncmp(path, under, strlen(under)) == 0;
}

static void linger(void)
{
    const struct timespec nap = {0, NAP_US * 1000};
    for (int64_t slept_us = 0; slept_us < control->slow_us; slept_us += NAP_US) nanosleep(&nap, NULL);
}

/* Delay a write up to `end`, or a flush (0); return whether there is no room for it. */
static int disk_refuses(int fd, off_t end)
{
    struct stat now;
    int before = errno;
    if ((!control->full && !control->slow_us) || !is_on_the_disk(fd)) return 0;
    if (control->slow_us) {
        met();
        linger();
    }
    int grows = control->full && fstat(fd, &now) == 0 && end > now.st_size;
    if (grows) met();
    errno = grows ? ENOSPC : before;
    return grows;
}

static off_t length_of(const struct iovec *parts, int count)
{
    off_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    return length;
}

ssize_t write(int fd, const void *data, size_t length)
{
    REAL(write);
    off_t at = control->full ? lseek(fd, 0, SEEK_CUR) : 0;
    return disk_refuses(fd, at + length) ? -1 : real(fd, data, length);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t at)
{
    REAL(pwrite);
    return disk_refuses(fd, at + length) ? -1 : real(fd, data, length, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    REAL(pwritev);
    return disk_refuses(fd, at + length_of(parts, count)) ? -1 : real(fd, parts, count, at);
}

int posix_fallocate(int fd, off_t at, off_t length)
{
    REAL(posix_fallocate);
    return disk_refuses(fd, at + length) ? ENOSPC : real(fd, at, length);
}

int fsync(int fd)
{
    REAL(fsync);
    disk_refuses(fd, 0);
    return real(fd);
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    disk_refuses(fd, 0);
    return real(fd);
}

/* Return the seconds to add to the wall clock. */
static int64_t wrong_by_s(void)
{
    int64_t ahead_s = control->ahead_s;
    if (ahead_s) met();
    return ahead_s;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(clock_gettime);
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += wrong_by_s();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    REAL(gettimeofday);
    int result = real(now, zone);
    if (result == 0) now->tv_sec += wrong_by_s();
    return result;
}

time_t time(time_t *now)
{
    struct timespec seen;
    clock_gettime(CLOCK_REALTIME, &seen);
    if (now) *now = seen.tv_sec;
    return seen.tv_sec;
}
