/*
 * memdirty MB_PER_S SECONDS [SEED [SPAN_MB [fill]]]: dirties memory at a steady rate; with "fill" it
 * first touches the whole span and says so.
 *
 * Pages are taken in a seeded pseudo-random order from a span of memory; in each page one word per
 * cache line changes. The end line carries a checksum, so that two runs can be compared.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { PAGE = 4096, LINE = 64 };

static uint64_t xorshift(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static uint64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

int main(int argc, char **argv)
{
	if (argc < 3 || atof(argv[1]) <= 0 || atof(argv[2]) <= 0) {
		fprintf(stderr, "usage: memdirty MB_PER_S SECONDS [SEED [SPAN_MB [fill]]]\n");
		return 2;
	}
	double pages_per_us = atof(argv[1]) * (1 << 20) / PAGE / 1e6;
	uint64_t run_us = (uint64_t)(atof(argv[2]) * 1e6);
	uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) | 1 : 1;
	uint64_t pages = (argc > 4 ? strtoull(argv[4], NULL, 0) : 64) * (1 << 20) / PAGE;
	uint8_t *mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t done = 0, sum = 0, start, t;

	if (pages == 0 || mem == MAP_FAILED) {
		perror("memdirty: cannot map the span");
		return 1;
	}
	if (argc > 5) {
		for (uint64_t page = 0; page < pages; page++)
			mem[page * PAGE] = (uint8_t)(page % 255 + 1);
		printf("memdirty filled %llu MB\n", (unsigned long long)(pages * PAGE >> 20));
		fflush(stdout);
	}
	start = now_us();
	while ((t = now_us() - start) < run_us) {
		uint64_t due = (uint64_t)((double)t * pages_per_us);
		/* In slices, so that the end time is kept even where the rate is out of reach. */
		for (int i = 0; i < 64 && done < due; i++, done++) {
			uint64_t r = xorshift(&seed);
			uint64_t *p = (uint64_t *)(mem + r % pages * PAGE);
			for (int w = 0; w < PAGE / 8; w += LINE / 8)
				p[w] += r;
			sum += p[0];
		}
		if (done >= due)
			nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
	}
	printf("memdirty %.1f MB in %.2f s, sum %016llx\n", (double)done * PAGE / (1 << 20),
	       (double)(now_us() - start) / 1e6, (unsigned long long)sum);
	return 0;
}
