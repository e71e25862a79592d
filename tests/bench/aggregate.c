/*
 * How fast are n updates of m MB aggregated, and in how much memory?
 *
 * The files are in the page cache, as they are when a round is sealed, of a file system as a coordinator has it: that of /dev/shm, without
 * large folios, gives its pages out at half the speed. The limits are measured in
 * the same run, in turns with what is measured, with as many threads: summing as many bytes of integers from memory into
 * sums that stay in cache, the fastest way found (no file, no base, no new model, no digest of it), and SHA-256 over them.
 * Aggregating cannot be faster than the first, and with the digests of all updates compared not faster than the second.
 *
 * Then a small model: 200 updates of 100 KB, one after another in one file, and in files of their own.
 */
#include "coordinator/aggregate.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/text.h"
#include "base/yaml.h"
#include "coordinator/crew.h"
#include "ml/safetensors.h"

#include <getopt.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	RUNS_MAX = 99,
	FILES_MAX = 256,
	BLOCK = 1 << 20,
	MEMORY_MAX = 256,
	MEMORY_MB = 256,
	SUMS = 32 << 10,
	SMALL_FILES = 200,
	SMALL_BYTES = 100000
};

struct args {
	int64_t files, runs, threads;
	double mb;
	const char *dir;
	bool json;
};

struct bench {
	const struct args *args;
	char dir[PATH_SIZE];
	struct manifest *manifest;
	int64_t files;
	bool batch; /* one file for all: paths[0] */
	char *paths[FILES_MAX];
	struct digest digests[FILES_MAX];
	int32_t *memory[MEMORY_MAX]; /* each an update; so many that no cache holds them */
	size_t n_memory;             /* a multiple of 4 */
	unsigned threads;
};

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int order(const void *a, const void *b)
{
	const double *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static double median(double *v, size_t n)
{
	qsort(v, n, sizeof *v, order);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static double peak_rss_mb(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)u.ru_maxrss * 1024 / 1e6;
}

static const char *at(const struct bench *b, const char *name, char out[PATH_SIZE])
{
	return path_join(out, b->dir, name);
}

/* A model of about m MB in one square layer; its file and its manifest. */
static enum err write_base(const struct bench *b, double mb)
{
	char path[PATH_SIZE];
	struct yaml *yaml;
	struct model *m;
	struct manifest *manifest;
	struct buf text;
	unsigned side = (unsigned)sqrt(mb * 1e6 / 4);
	char *description = mem_printf("{input: [%u], outputs: 1, layers: [{op: linear, name: a, out: %u}, {op: relu}, "
				       "{op: linear, name: head, out: outputs}]}",
				       side, side);
	TRY(yaml_parse("bench", bytes_str(description), &yaml));
	TRY(model_from_yaml(yaml_root(yaml), &m));
	model_init(m, 1);
	TRY(manifest_build(m, NULL, NULL, &manifest));
	TRY(safetensors_save(at(b, "base", path), m, NULL));
	buf_init(&text, MANIFEST_MAX);
	TRY(manifest_canonical(manifest, &text));
	return file_replace(at(b, "manifest", path), buf_bytes(&text), 0600);
}

/* The same numbers again and again, from another place for each update. */
static enum err write_update(struct file *f, size_t n, uint64_t seed)
{
	struct rng r;
	int32_t *block = mem_array(BLOCK, sizeof *block);
	rng_seed(&r, seed);
	for (size_t i = 0; i < BLOCK && i < n; i++)
		block[i] = (int32_t)(rng_u64(&r) >> 40) - (1 << 23);
	enum err e = ERR_OK;
	for (size_t at = 0; e == ERR_OK && at < n; at += BLOCK)
		e = file_write(f, block, (n - at < BLOCK ? n - at : BLOCK) * sizeof *block);
	free(block);
	return e;
}

static enum err write_updates(const struct bench *b)
{
	struct file *f = NULL;
	for (int64_t i = 0; i < b->files; i++) {
		if (i == 0 || !b->batch) {
			file_close(f);
			TRY(file_create(b->paths[i], 0600, &f));
		}
		TRY(write_update(f, b->manifest->n_travel, (uint64_t)i + 1));
	}
	file_close(f);
	return ERR_OK;
}

static enum err load_manifest(struct bench *b)
{
	char path[PATH_SIZE];
	struct buf text;
	TRY(file_read(at(b, "manifest", path), MANIFEST_MAX, &text));
	enum err e = manifest_parse(buf_bytes(&text), &b->manifest);
	buf_deinit(&text);
	return e;
}

static enum err prepare(struct bench *b, double mb)
{
	TRY(write_base(b, mb));
	TRY(load_manifest(b));
	return write_updates(b);
}

/* In a process of its own, so that the memory of this one stays that of the aggregation. */
static enum err prepare_apart(struct bench *b, double mb)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0)
		return err_errno("fork");
	if (pid == 0) {
		enum err e = prepare(b, mb);
		if (e != ERR_OK)
			fprintf(stderr, "bench: %s\n", err_text());
		_exit(e == ERR_OK ? 0 : 1);
	}
	int status;
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(ERR_IO, "the files could not be made");
	TRY(load_manifest(b));
	for (int64_t i = 0; i < b->files && !b->batch; i++)
		TRY(digest_file(b->paths[i], &b->digests[i], NULL));
	return ERR_OK;
}

/* Each of these takes all the bytes of the updates once, and returns the seconds. */

static enum err time_aggregation(const struct bench *b, bool with_digests, double *ret_seconds)
{
	struct aggregate_input inputs[FILES_MAX];
	char base[PATH_SIZE], out[PATH_SIZE];
	struct digest d;
	uint64_t size;
	size_t bytes = manifest_update_bytes(b->manifest);
	for (int64_t i = 0; i < b->files; i++)
		inputs[i] = (struct aggregate_input){.path = b->paths[b->batch ? 0 : i],
						     .offset = b->batch ? (uint64_t)i * bytes : 0,
						     .weight = 100 + i,
						     .full = 100 + i,
						     .digest = with_digests ? &b->digests[i] : NULL};
	struct aggregate_job job = {.base_path = at(b, "base", base),
				    .manifest = b->manifest,
				    .inputs = inputs,
				    .n_inputs = (size_t)b->files,
				    .server_rate = 1,
				    .out_path = at(b, "new", out),
				    .threads = (unsigned)b->args->threads};
	double start = seconds();
	TRY(aggregate_run(&job, &d, &size));
	*ret_seconds = seconds() - start;
	/* A new model is a new file: cutting an old one off first would be timed with it. */
	return file_discard(out);
}

struct share {
	const struct bench *b;
	unsigned number;
	pthread_t thread;
};

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
static void
add_four(int64_t *restrict sum, const int32_t *restrict p, const int32_t *restrict q, const int32_t *restrict r,
	 const int32_t *restrict s, size_t n, int32_t weight)
{
	for (size_t i = 0; i < n; i++)
		sum[i] += ((int64_t)weight * p[i] + (int64_t)(weight + 1) * q[i]) +
			  ((int64_t)(weight + 2) * r[i] + (int64_t)(weight + 3) * s[i]);
}

/* Four at a time: a pass over the sums costs more than reading one update. As many bytes as aggregating reads of updates. */
static void *sum_share(void *arg)
{
	const struct share *s = arg;
	const struct bench *b = s->b;
	size_t n = b->manifest->n_travel, from = n / b->threads * s->number;
	size_t to = s->number + 1 == b->threads ? n : n / b->threads * (s->number + 1);
	int64_t *sum = mem_aligned(SUMS * sizeof *sum);
	for (size_t f = 0; f < (size_t)b->files; f += 4) {
		int32_t *const *m = b->memory + f % b->n_memory;
		for (size_t k = from; k < to; k += SUMS) {
			add_four(sum, m[0] + k, m[1] + k, m[2] + k, m[3] + k, to - k < SUMS ? to - k : SUMS, 100);
			__asm__ volatile("" : : "r"(sum) : "memory");
		}
	}
	free(sum);
	return NULL;
}

static void *digest_share(void *arg)
{
	const struct share *s = arg;
	const struct bench *b = s->b;
	struct digester *d = digest_begin();
	for (int64_t f = s->number; f < b->files; f += b->threads)
		digest_add(d, b->memory[(size_t)f % b->n_memory], manifest_update_bytes(b->manifest));
	struct digest unused = digest_end(d);
	__asm__ volatile("" : : "r"(&unused) : "memory");
	return NULL;
}

static double time_shares(const struct bench *b, void *(*fn)(void *))
{
	struct share shares[AGGREGATE_THREADS_MAX];
	double start = seconds();
	for (unsigned i = 0; i < b->threads; i++) {
		shares[i] = (struct share){.b = b, .number = i};
		if (i > 0)
			ENSURE(pthread_create(&shares[i].thread, NULL, fn, &shares[i]) == 0);
	}
	fn(&shares[0]);
	for (unsigned i = 1; i < b->threads; i++)
		pthread_join(shares[i].thread, NULL);
	return seconds() - start;
}

static void take_memory(struct bench *b)
{
	size_t n = b->manifest->n_travel, fit = MEMORY_MB * (size_t)1000000 / (n * sizeof(int32_t));
	b->n_memory = fit < (size_t)b->files ? fit / 4 * 4 : (size_t)(b->files + 3) / 4 * 4;
	b->n_memory = b->n_memory > 4 ? b->n_memory : 4;
	for (size_t k = 0; k < b->n_memory; k++) {
		b->memory[k] = mem_aligned(n * sizeof *b->memory[k]);
		for (size_t i = 0; i < n; i++)
			b->memory[k][i] = (int32_t)(i * 2654435761u + k) >> 8;
	}
}

static void print(const struct args *args, const char *metric, double value, const char *unit, const char *limit,
		  double limit_value)
{
	if (args->json)
		printf("{\"bench\":\"aggregate\",\"metric\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"limit\":\"%s\","
		       "\"limit_value\":%.4g,"
		       "\"ratio\":%.3f}\n",
		       metric, value, unit, limit, limit_value, value / limit_value);
	else
		printf("%-14s %-28s %12.4g %-8s (%s: %.4g; ratio %.3f)\n", "aggregate", metric, value, unit, limit,
		       limit_value, value / limit_value);
}

static enum err measure_large(struct bench *b)
{
	const struct args *args = b->args;
	double bare[RUNS_MAX], digested[RUNS_MAX], memory[RUNS_MAX], sha[RUNS_MAX];
	size_t n = (size_t)args->runs;
	char name[64];
	double rss = peak_rss_mb(); /* of the program with its libraries */
	TRY(time_aggregation(b, true, &bare[0]));
	rss = peak_rss_mb() - rss;
	take_memory(b);
	for (size_t i = 0; i < n; i++) {
		TRY(time_aggregation(b, false, &bare[i]));
		memory[i] = time_shares(b, sum_share);
		TRY(time_aggregation(b, true, &digested[i]));
		sha[i] = time_shares(b, digest_share);
	}
	double bytes = (double)manifest_update_bytes(b->manifest), gb = bytes * (double)b->files / 1e9;
	snprintf(name, sizeof name, "summing from memory, threads: %u", b->threads);
	print(args, "updates", gb / median(bare, n), "GB/s", name, gb / median(memory, n));
	snprintf(name, sizeof name, "SHA-256, threads: %u", b->threads);
	print(args, "updates with SHA-256", gb / median(digested, n), "GB/s", name, gb / median(sha, n));
	print(args, "memory taken", rss, "MB", "size of the model", bytes / 1e6);
	return ERR_OK;
}

static enum err measure_small(struct bench *b, const char *metric)
{
	double taken[RUNS_MAX], memory[RUNS_MAX];
	size_t n = (size_t)b->args->runs;
	take_memory(b);
	for (size_t i = 0; i < n; i++) {
		TRY(time_aggregation(b, false, &taken[i]));
		memory[i] = time_shares(b, sum_share);
	}
	/* Time, so that more is worse; the limit's share all the same. */
	double ms = 1e3 * median(taken, n), limit = 1e3 * median(memory, n);
	if (b->args->json)
		printf("{\"bench\":\"aggregate\",\"metric\":\"%s\",\"value\":%.4g,\"unit\":\"ms\",\"limit\":\"summing "
		       "from "
		       "memory\",\"limit_value\":%.4g,\"ratio\":%.3f}\n",
		       metric, ms, limit, limit / ms);
	else
		printf("%-14s %-28s %12.4g %-8s (%s: %.4g; ratio %.3f)\n", "aggregate", metric, ms, "ms",
		       "summing from memory", limit, limit / ms);
	return ERR_OK;
}

static enum err remove_one(void *arg, const char *name)
{
	char path[PATH_SIZE];
	return file_remove(path_join(path, arg, name));
}

static enum err with_files(const struct args *args, int64_t files, bool batch, double mb, const char *metric)
{
	struct bench b = {.args = args, .files = files, .batch = batch, .threads = (unsigned)args->threads};
	if (b.threads == 0)
		b.threads = crew_cpus() < AGGREGATE_THREADS_MAX ? crew_cpus() : AGGREGATE_THREADS_MAX;
	snprintf(b.dir, sizeof b.dir, "%.900s/hansa-bench-XXXXXX", args->dir);
	if (mkdtemp(b.dir) == NULL)
		return err_errno("%s: cannot make a directory", args->dir);
	for (int64_t i = 0; i < files; i++)
		b.paths[i] = mem_printf("%s/update-%d", b.dir, (int)i);
	enum err e = prepare_apart(&b, mb);
	if (e == ERR_OK)
		e = metric == NULL ? measure_large(&b) : measure_small(&b, metric);
	char *why = mem_str(err_text());
	if (dir_each(b.dir, remove_one, b.dir) == ERR_OK)
		rmdir(b.dir);
	err_set(e, "%s", why);
	free(why);
	for (int64_t i = 0; i < files; i++)
		free(b.paths[i]);
	for (size_t k = 0; k < b.n_memory; k++)
		free(b.memory[k]);
	manifest_free(b.manifest);
	return e;
}

static enum err run(struct args *args)
{
	if (args->dir == NULL)
		args->dir = "/tmp";
	TRY(with_files(args, args->files, false, args->mb, NULL));
	TRY(with_files(args, SMALL_FILES, true, SMALL_BYTES / 1e6, "200 of 100 KB, one file"));
	return with_files(args, SMALL_FILES, false, SMALL_BYTES / 1e6, "200 of 100 KB, 200 files");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"files", required_argument, NULL, 'n'},
						{"mb", required_argument, NULL, 'm'},
						{"runs", required_argument, NULL, 'r'},
						{"dir", required_argument, NULL, 'd'},
						{"threads", required_argument, NULL, 't'},
						{"json", no_argument, NULL, 'j'},
						{0}};
	struct args args = {.files = 32, .runs = 7, .mb = 46.8};
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		bool good = c != '?';
		if (c == 'n')
			good = text_to_int(optarg, &args.files) && args.files >= 1 && args.files <= FILES_MAX;
		else if (c == 'm')
			good = text_to_real(optarg, &args.mb) && args.mb >= 0.01 && args.mb <= 4000;
		else if (c == 'r')
			good = text_to_int(optarg, &args.runs) && args.runs >= 1 && args.runs <= RUNS_MAX;
		else if (c == 't')
			good = text_to_int(optarg, &args.threads) && args.threads >= 1 &&
			       args.threads <= AGGREGATE_THREADS_MAX;
		else if (c == 'd')
			args.dir = optarg;
		else if (c == 'j')
			args.json = true;
		if (!good) {
			fprintf(stderr, "usage: bench-aggregate [--files 32] [--mb 46.8] [--runs 7] [--threads N] "
					"[--dir DIR] [--json]\n");
			return 2;
		}
	}
	if (run(&args) == ERR_OK)
		return 0;
	fprintf(stderr, "bench-aggregate: %s\n", err_text());
	return 1;
}
