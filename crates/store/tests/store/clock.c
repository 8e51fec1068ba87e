// Preloaded into a Redis: its clock runs ahead by the microseconds in the file that REDIS_CLOCK names. Redis takes its
// time from gettimeofday, for TIME and for expiry alike, so a test lets a lease run out without waiting for it.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile int64_t *ahead;

__attribute__((constructor)) static void map(void) {
    const char *path = getenv("REDIS_CLOCK");
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0) return;
    void *page = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) ahead = page;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t microseconds = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000 + (ahead ? *ahead : 0);
    at->tv_sec = microseconds / 1000000;
    at->tv_usec = microseconds % 1000000;
    return 0;
}
