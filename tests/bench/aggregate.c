/*
 * How fast are n updates of m MB aggregated, and in how much memory?
 *
 * The files are in the page cache (or on /dev/shm), as they are when a round is sealed. Two limits are measured in
 * the same run, in turns with what is measured: reading as many bytes from memory with one thread, and SHA-256 over
 * them. Without digests the aggregation cannot be faster than the first, with them not faster than the second.
 */
#include "coordinator/aggregate.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/text.h"
#include "base/yaml.h"
#include "ml/safetensors.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RUNS_MAX = 99, FILES_MAX = 64, BLOCK = 1 << 20 };

struct args {
	int64_t files, runs;
	double mb;
	const char *dir;
	bool json;
};

struct bench {
	const struct args *args;
	char dir[PATH_SIZE];
	struct manifest *manifest;
	char *paths[FILES_MAX];
	struct digest digests[FILES_MAX];
	uint8_t *memory; /* as many bytes as one update */
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
static enum err write_base(const struct bench *b)
{
	char path[PATH_SIZE];
	struct yaml *yaml;
	struct model *m;
	struct manifest *manifest;
	struct buf text;
	unsigned side = (unsigned)sqrt(b->args->mb * 1e6 / 4);
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

static enum err write_update(const char *path, size_t n, uint64_t seed)
{
	struct file *f;
	struct rng r;
	int32_t *block = mem_array(BLOCK, sizeof *block);
	rng_seed(&r, seed);
	TRY(file_create(path, 0600, &f));
	for (size_t at = 0; at < n;) {
		size_t k = n - at < BLOCK ? n - at : BLOCK;
		for (size_t i = 0; i < k; i++)
			block[i] = (int32_t)(rng_u64(&r) >> 40) - (1 << 23);
		TRY(file_write(f, block, k * sizeof *block));
		at += k;
	}
	file_close(f);
	free(block);
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

static enum err prepare(struct bench *b)
{
	TRY(write_base(b));
	TRY(load_manifest(b));
	for (int64_t i = 0; i < b->args->files; i++)
		TRY(write_update(b->paths[i], b->manifest->n_travel, (uint64_t)i + 1));
	return ERR_OK;
}

/* In a process of its own, so that the memory of this one stays that of the aggregation. */
static enum err prepare_apart(struct bench *b)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0)
		return err_errno("fork");
	if (pid == 0) {
		enum err e = prepare(b);
		if (e != ERR_OK)
			fprintf(stderr, "bench: %s\n", err_text());
		_exit(e == ERR_OK ? 0 : 1);
	}
	int status;
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(ERR_IO, "the files could not be made");
	TRY(load_manifest(b));
	for (int64_t i = 0; i < b->args->files; i++)
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
	for (int64_t i = 0; i < b->args->files; i++)
		inputs[i] = (struct aggregate_input){b->paths[i], 100 + i, with_digests ? &b->digests[i] : NULL};
	struct aggregate_job job = {.base_path = at(b, "base", base),
				    .manifest = b->manifest,
				    .inputs = inputs,
				    .n_inputs = (size_t)b->args->files,
				    .server_rate = 1,
				    .out_path = at(b, "new", out)};
	double start = seconds();
	TRY(aggregate_run(&job, &d, &size));
	*ret_seconds = seconds() - start;
	return ERR_OK;
}

static double time_memory(const struct bench *b)
{
	size_t n = b->manifest->n_travel / 8 * 8;
	uint64_t lanes[8] = {0};
	double start = seconds();
	for (int64_t f = 0; f < b->args->files; f++) {
		const uint8_t *p = b->memory;
		for (size_t i = 0; i < n; i += 16, p += 64) {
			uint64_t v[8];
			memcpy(v, p, sizeof v);
			for (int k = 0; k < 8; k++)
				lanes[k] += v[k];
		}
		__asm__ volatile("" : : "r"(lanes) : "memory");
	}
	return seconds() - start;
}

static double time_sha256(const struct bench *b)
{
	double start = seconds();
	struct digester *d = digest_begin();
	for (int64_t f = 0; f < b->args->files; f++)
		digest_add(d, b->memory, manifest_update_bytes(b->manifest));
	struct digest unused = digest_end(d);
	__asm__ volatile("" : : "r"(&unused) : "memory");
	return seconds() - start;
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

static enum err measure(struct bench *b)
{
	const struct args *args = b->args;
	double bare[RUNS_MAX], digested[RUNS_MAX], memory[RUNS_MAX], sha[RUNS_MAX];
	size_t n = (size_t)args->runs;
	double rss = peak_rss_mb(); /* of the program with its libraries */
	TRY(time_aggregation(b, true, &bare[0]));
	rss = peak_rss_mb() - rss;
	b->memory = mem_aligned(manifest_update_bytes(b->manifest) + 64);
	memset(b->memory, 1, manifest_update_bytes(b->manifest));
	for (size_t i = 0; i < n; i++) {
		TRY(time_aggregation(b, false, &bare[i]));
		memory[i] = time_memory(b);
		TRY(time_aggregation(b, true, &digested[i]));
		sha[i] = time_sha256(b);
	}
	double bytes = (double)manifest_update_bytes(b->manifest), gb = bytes * (double)args->files / 1e9;
	print(args, "updates", gb / median(bare, n), "GB/s", "reading memory, one thread", gb / median(memory, n));
	print(args, "updates with SHA-256", gb / median(digested, n), "GB/s", "SHA-256, one thread",
	      gb / median(sha, n));
	print(args, "memory taken", rss, "MB", "size of the model", bytes / 1e6);
	return ERR_OK;
}

static enum err remove_one(void *arg, const char *name)
{
	char path[PATH_SIZE];
	return file_remove(path_join(path, arg, name));
}

static enum err run(struct args *args)
{
	if (args->dir == NULL)
		args->dir = file_exists("/dev/shm") ? "/dev/shm" : "/tmp";
	struct bench b = {.args = args};
	snprintf(b.dir, sizeof b.dir, "%.900s/hansa-bench-XXXXXX", args->dir);
	if (mkdtemp(b.dir) == NULL)
		return err_errno("%s: cannot make a directory", args->dir);
	for (int64_t i = 0; i < args->files; i++)
		b.paths[i] = mem_printf("%s/update-%d", b.dir, (int)i);
	enum err e = prepare_apart(&b);
	if (e == ERR_OK)
		e = measure(&b);
	char *why = mem_str(err_text());
	if (dir_each(b.dir, remove_one, b.dir) == ERR_OK)
		rmdir(b.dir);
	err_set(e, "%s", why);
	free(why);
	for (int64_t i = 0; i < args->files; i++)
		free(b.paths[i]);
	free(b.memory);
	manifest_free(b.manifest);
	return e;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"files", required_argument, NULL, 'n'}, {"mb", required_argument, NULL, 'm'},
		{"runs", required_argument, NULL, 'r'},  {"dir", required_argument, NULL, 'd'},
		{"json", no_argument, NULL, 'j'},        {0}};
	struct args args = {.files = 8, .runs = 7, .mb = 46.8};
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		bool good = c != '?';
		if (c == 'n')
			good = text_to_int(optarg, &args.files) && args.files >= 1 && args.files <= FILES_MAX;
		else if (c == 'm')
			good = text_to_real(optarg, &args.mb) && args.mb >= 0.01 && args.mb <= 4000;
		else if (c == 'r')
			good = text_to_int(optarg, &args.runs) && args.runs >= 1 && args.runs <= RUNS_MAX;
		else if (c == 'd')
			args.dir = optarg;
		else if (c == 'j')
			args.json = true;
		if (!good) {
			fprintf(stderr,
				"usage: bench-aggregate [--files 8] [--mb 46.8] [--runs 7] [--dir DIR] [--json]\n");
			return 2;
		}
	}
	if (run(&args) == ERR_OK)
		return 0;
	fprintf(stderr, "bench-aggregate: %s\n", err_text());
	return 1;
}
