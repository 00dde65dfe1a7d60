// Writes expf and logf of every STRIDE-th float, as the C library computes them.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
	if (argc != 2) return 2;
	uint64_t stride = strtoull(argv[1], 0, 10);
	for (uint64_t bits = 0; bits < 1ull << 32; bits += stride) {
		uint32_t b = (uint32_t)bits;
		float x, y[2];
		memcpy(&x, &b, 4);
		y[0] = expf(x);
		y[1] = logf(x);
		if (fwrite(y, 4, 2, stdout) != 2) return 1;
	}
	return 0;
}
