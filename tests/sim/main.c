/*
 * sim --seed N [--plants P] [--verbose]     one run; --verbose prints everything that happens
 * sim --seeds A..B [--twice] [--cover]      many; --twice: each two times, with the same trace; --cover: whatever the simulator can do must
 *                                           have happened
 * sim --seeds A..B --sabotage KIND          mistakes on purpose: each must be noticed, and there must be an occasion for one
 * A violation prints the seed, the invariant and the last events; the exit code is 1 then.
 */
#include "sim/sim.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct arguments {
	uint64_t first, last;
	uint32_t plants;
	bool verbose, twice, covers;
	const char *sabotage; /* NULL: none */
};

static bool read_number(const char *text, uint64_t *ret_number, const char **ret_end)
{
	char *end;
	if (text == NULL || *text < '0' || *text > '9')
		return false;
	*ret_number = strtoull(text, &end, 10);
	*ret_end = end;
	return true;
}

static const char *find_sabotage(const char *name)
{
	for (size_t i = 0; name != NULL && sabotage_name(i) != NULL; i++) {
		if (strcmp(sabotage_name(i), name) == 0)
			return sabotage_name(i);
	}
	return NULL;
}

static bool read_arguments(int argc, char **argv, struct arguments *a)
{
	*a = (struct arguments){.first = 1, .last = 100};
	for (int i = 1; i < argc; i++) {
		uint64_t n;
		const char *end = "", *value = i + 1 < argc ? argv[i + 1] : NULL;
		if (strcmp(argv[i], "--verbose") == 0) {
			a->verbose = true;
		} else if (strcmp(argv[i], "--twice") == 0) {
			a->twice = true;
		} else if (strcmp(argv[i], "--cover") == 0) {
			a->covers = true;
		} else if (strcmp(argv[i], "--sabotage") == 0 && (a->sabotage = find_sabotage(value)) != NULL) {
			i++;
		} else if (strcmp(argv[i], "--seed") == 0 && read_number(value, &n, &end) && *end == '\0') {
			a->first = a->last = n;
			i++;
		} else if (strcmp(argv[i], "--plants") == 0 && read_number(value, &n, &end) && *end == '\0' && n >= 1 &&
			   n <= SIM_PLANTS_MAX) {
			a->plants = (uint32_t)n;
			i++;
		} else if (strcmp(argv[i], "--seeds") == 0 && read_number(value, &a->first, &end) &&
			   strncmp(end, "..", 2) == 0 && read_number(end + 2, &a->last, &end) && *end == '\0' &&
			   a->first <= a->last) {
			i++;
		} else {
			return false;
		}
	}
	return true;
}

/* In memory where there is a file system for that: nothing here is to outlive the process. */
static char *make_folder(void)
{
	const char *base = getenv("TMPDIR");
	if (access("/dev/shm", W_OK) == 0)
		base = "/dev/shm";
	char *path = mem_printf("%s/hansa-sim-XXXXXX", base != NULL ? base : "/tmp");
	if (mkdtemp(path) == NULL) {
		perror(path);
		exit(2);
	}
	return path;
}

static bool run_one(const struct arguments *a, uint64_t seed, const char *dir, uint64_t *steps)
{
	struct sim_options options = {.seed = seed, .plants = a->plants, .verbose = a->verbose, .dir = dir};
	struct sim_result result, again;
	sim_run(&options, &result);
	*steps += result.steps;
	if (result.violated != NULL) {
		if (!a->verbose)
			trace_print();
		printf("seed %" PRIu64 " violates \"%s\": %s\nagain: sim --seed %" PRIu64 " --verbose\n", seed,
		       result.violated, result.why, seed);
		return false;
	}
	if (a->first == a->last)
		printf("seed %" PRIu64 ": %" PRIu64 " events, trace %016" PRIx64 "\n", seed, result.steps, result.hash);
	if (!a->twice)
		return true;
	sim_run(&options, &again);
	if (again.hash == result.hash && again.steps == result.steps)
		return true;
	printf("seed %" PRIu64 " does not replay: trace %016" PRIx64 ", then %016" PRIx64 "\n", seed, result.hash,
	       again.hash);
	return false;
}

/* *ret_struck: there was an occasion. */
static bool run_sabotaged(const struct arguments *a, uint64_t seed, const char *dir, bool *ret_struck)
{
	struct sim_options options = {
		.seed = seed, .plants = a->plants, .verbose = a->verbose, .dir = dir, .sabotage = a->sabotage};
	struct sim_result result;
	sim_run(&options, &result);
	*ret_struck = result.sabotaged;
	if (result.sabotaged && result.violated == NULL)
		printf("seed %" PRIu64 ": %s is not noticed\n", seed, a->sabotage);
	else if (result.violated != NULL)
		printf("seed %" PRIu64 ": %s: \"%s\": %s\n", seed,
		       result.sabotaged ? a->sabotage : "nothing was done, and", result.violated, result.why);
	return result.sabotaged == (result.violated != NULL);
}

static bool run_all_sabotaged(const struct arguments *a, const char *dir)
{
	bool well = true, any = false;
	for (uint64_t seed = a->first; well && seed <= a->last; seed++) {
		bool struck;
		well = run_sabotaged(a, seed, dir, &struck);
		any |= struck;
	}
	if (well && !any)
		printf("there was no occasion for %s\n", a->sabotage);
	return well && any;
}

static void print_usage(void)
{
	fprintf(stderr,
		"usage: sim --seed N | --seeds A..B [--plants 1..%d] [--verbose] [--twice] [--cover] [--sabotage "
		"KIND]\n"
		"kinds:",
		SIM_PLANTS_MAX);
	for (size_t i = 0; sabotage_name(i) != NULL; i++)
		fprintf(stderr, " %s", sabotage_name(i));
	fprintf(stderr, "\n");
}

int main(int argc, char **argv)
{
	struct arguments a;
	if (!read_arguments(argc, argv, &a)) {
		print_usage();
		return 2;
	}
	char *dir = make_folder();
	int64_t began = clock_monotonic_ms();
	uint64_t steps = 0, n = 0;
	bool well = a.sabotage == NULL || run_all_sabotaged(&a, dir);
	for (uint64_t seed = a.first; a.sabotage == NULL && well && seed <= a.last; seed++, n++)
		well = run_one(&a, seed, dir, &steps);
	rmdir(dir);
	free(dir);
	double seconds = (double)(clock_monotonic_ms() - began) / 1000;
	if (well && a.first != a.last && a.sabotage == NULL)
		printf("%" PRIu64 " seeds, %" PRIu64 " events, no violation; %.1f seeds/s\n", n, steps,
		       (double)n / (seconds > 0 ? seconds : 1));
	if (well && a.covers) {
		cover_print();
		well = !cover_missing();
	}
	return well ? 0 : 1;
}
