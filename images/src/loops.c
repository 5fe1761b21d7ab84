/*
 * loops xorshift ROUNDS | copy-mov MB | copy-rep MB: the inner loops of the benchmarks.
 *
 * Written in assembly where the instructions themselves are what is measured, so that a compiler's taste
 * does not change the figure. Each prints a checksum.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MB = 1 << 20, SPAN = 4 * MB };

/* Thirteen instructions a round: arithmetic, a store, a load, a conditional move, a branch. */
static uint64_t xorshift(uint64_t rounds)
{
	uint64_t x = 88172645463325252u, sum = 0, low = 0, best = 0, t, cell = 0;

	__asm__ volatile("1: mov %[x], %[t]\n\t"
			 "shl $13, %[t]\n\t"
			 "xor %[t], %[x]\n\t"
			 "mov %[x], %[t]\n\t"
			 "shr $7, %[t]\n\t"
			 "xor %[t], %[x]\n\t"
			 "add %[x], %[sum]\n\t"
			 "mov %[sum], %[cell]\n\t"
			 "add %[cell], %[low]\n\t"
			 "cmp %[x], %[low]\n\t"
			 "cmovb %[low], %[best]\n\t"
			 "dec %[n]\n\t"
			 "jnz 1b"
			 : [x] "+r"(x), [sum] "+r"(sum), [low] "+r"(low), [best] "+r"(best),
			   [n] "+r"(rounds), [t] "=&r"(t), [cell] "+m"(cell)
			 :
			 : "cc", "memory");
	return x ^ sum ^ low ^ best;
}

/* 32 bytes a turn by four loads and four stores. */
static void copy_mov(void *to, const void *from)
{
	uint64_t n = SPAN / 32, a, b, c, d;

	__asm__ volatile("1: mov (%[f]), %[a]\n\t"
			 "mov 8(%[f]), %[b]\n\t"
			 "mov 16(%[f]), %[c]\n\t"
			 "mov 24(%[f]), %[d]\n\t"
			 "mov %[a], (%[t])\n\t"
			 "mov %[b], 8(%[t])\n\t"
			 "mov %[c], 16(%[t])\n\t"
			 "mov %[d], 24(%[t])\n\t"
			 "add $32, %[f]\n\t"
			 "add $32, %[t]\n\t"
			 "dec %[n]\n\t"
			 "jnz 1b"
			 : [f] "+r"(from), [t] "+r"(to), [n] "+r"(n), [a] "=&r"(a), [b] "=&r"(b),
			   [c] "=&r"(c), [d] "=&r"(d)
			 :
			 : "cc", "memory");
}

static void copy_rep(void *to, const void *from)
{
	uint64_t n = SPAN / 8;

	__asm__ volatile("rep movsq" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
}

static uint64_t copy(void (*one)(void *, const void *), uint64_t megabytes)
{
	uint64_t *from = malloc(SPAN), *to = malloc(SPAN), sum = 0;

	if (!from || !to)
		exit(1);
	for (int i = 0; i < SPAN / 8; i++)
		from[i] = (uint64_t)i * 0x9e3779b97f4a7c15u;
	memset(to, 0, SPAN);
	for (uint64_t done = 0; done < megabytes; done += SPAN / MB) {
		from[done % 1000] ^= done;
		one(to, from);
		sum += to[done % 1000];
	}
	return sum;
}

int main(int argc, char **argv)
{
	const char *what = argc == 3 ? argv[1] : "";
	uint64_t n = argc == 3 ? strtoull(argv[2], NULL, 0) : 0, sum;

	if (n && !strcmp(what, "xorshift"))
		sum = xorshift(n);
	else if (n && !strcmp(what, "copy-mov"))
		sum = copy(copy_mov, n);
	else if (n && !strcmp(what, "copy-rep"))
		sum = copy(copy_rep, n);
	else {
		fprintf(stderr, "usage: loops xorshift ROUNDS | copy-mov MB | copy-rep MB\n");
		return 2;
	}
	printf("%s %llu: %016llx\n", what, (unsigned long long)n, (unsigned long long)sum);
	return 0;
}
