/*
 * A coordinator in memory for the tests of this folder: it gives the tasks of a script, one after the other, keeps what
 * it is sent, and fails where it is told to.
 */
#ifndef HANSA_TEST_CLIENT_COORDINATOR_H
#define HANSA_TEST_CLIENT_COORDINATOR_H

#include "rpc/fixture.h"

#include "ml/safetensors.h"
#include "temp.h"
#include "update/job.h"

#include <pthread.h>

enum { SCRIPT_MAX = 12, KEPT_MAX = 12, CUTS_MAX = 16, CONTENT_MAX = 8 << 20 };

/* Streams that are cut, one after the other: after how many bytes. */
struct cuts {
	size_t after[CUTS_MAX];
	size_t n, next;
};

struct coordinator {
	pthread_mutex_t lock;
	struct rpc_server *server;
	/* what it gives */
	struct buf source, other; /* model files */
	struct buf config, manifest;
	struct wire_task script[SCRIPT_MAX]; /* config and manifest are filled in when asked */
	size_t n_script, next;
	/* how it fails */
	enum err fail[METHOD_COUNT]; /* the next call of the method ends so, once */
	enum err refuse_upload;      /* after all has come; for as long as it is set */
	bool receipt_of_another, model_damaged, model_longer;
	struct cuts cut_uploads, cut_fetches;
	uint64_t offset_lie; /* added to what is answered, once */
	/* what it has of an update that was cut */
	struct buf part;
	struct digest part_digest;
	/* what it was sent */
	struct wire_task_request asked; /* last */
	struct wire_report reports[KEPT_MAX];
	struct buf uploads[KEPT_MAX];
	struct wire_head heads[KEPT_MAX];
	size_t n_reports, n_uploads, n_questions, n_fetches, n_offsets;
	uint64_t bytes_in, bytes_out; /* of data, in streams */
	uint64_t last_fetch_offset;
};

/* The place at which this stream ends; SIZE_MAX: at its own end. */
static inline size_t next_cut(struct cuts *c)
{
	return c->next < c->n ? c->after[c->next++] : SIZE_MAX;
}

static inline enum err fail_once(struct coordinator *c, enum method_id method)
{
	enum err err = c->fail[method];
	c->fail[method] = ERR_OK;
	return err == ERR_OK ? ERR_OK : err_set(err, "said the test");
}

static inline void coordinator_task(void *ctx, const struct peer *peer, struct bytes request, struct rpc_ticket *ticket)
{
	struct coordinator *c = ctx;
	struct buf reply;
	(void)peer;
	buf_init(&reply, 1 << 20);
	pthread_mutex_lock(&c->lock);
	c->n_questions++;
	enum err err = wire_task_request_unpack(request, &c->asked);
	if (err == ERR_OK)
		err = fail_once(c, METHOD_NEXT_TASK);
	if (err == ERR_OK) {
		struct wire_task task = {.kind = WIRE_TASK_WAIT};
		if (c->next < c->n_script) {
			task = c->script[c->next++];
			task.config = c->config;
			task.manifest = c->manifest;
		}
		err = wire_task_pack(&task, &reply);
	}
	pthread_mutex_unlock(&c->lock);
	rpc_ticket_answer(ticket, err, buf_bytes(&reply));
	buf_deinit(&reply);
}

static inline bool coordinator_gone(void *ctx, struct rpc_ticket *ticket)
{
	(void)ctx;
	(void)ticket;
	return false;
}

static inline enum err coordinator_fetch(void *ctx, const struct peer *peer, struct bytes request,
					 struct rpc_stream *out)
{
	struct coordinator *c = ctx;
	struct wire_fetch_request asked;
	(void)peer;
	TRY(wire_fetch_request_unpack(request, &asked));
	pthread_mutex_lock(&c->lock);
	c->n_fetches++;
	c->last_fetch_offset = asked.offset;
	enum err err = fail_once(c, METHOD_FETCH);
	size_t cut = err == ERR_OK ? next_cut(&c->cut_fetches) : 0;
	bool damaged = c->model_damaged, longer = c->model_longer;
	pthread_mutex_unlock(&c->lock);
	TRY(err);
	struct digest source = digest_of(buf_bytes(&c->source));
	struct bytes model = buf_bytes(digest_equal(&source, &asked.digest) ? &c->source : &c->other);
	struct wire_head head = {.size = model.n + longer, .offset = asked.offset, .digest = asked.digest};
	uint8_t *content = mem_array(model.n + 1, 1);
	memcpy(content, model.p, model.n);
	content[model.n - 1] ^= damaged;
	err = rpc_stream_send_head(out, &head);
	size_t end = model.n + longer;
	for (size_t at = (size_t)asked.offset, n; err == ERR_OK && at < end; at += n) {
		n = end - at < WIRE_CHUNK_SIZE ? end - at : WIRE_CHUNK_SIZE;
		n = n < cut ? n : cut;
		if (n > 0)
			err = rpc_stream_send(out, content + at, n);
		pthread_mutex_lock(&c->lock);
		c->bytes_out += n;
		pthread_mutex_unlock(&c->lock);
		cut -= n;
		if (err == ERR_OK && cut == 0)
			err = err_set(ERR_UNAVAILABLE, "cut by the test");
	}
	free(content);
	return err;
}

/* What came of the update is kept over a cut, like a spool does. */
static inline enum err coordinator_receive(struct coordinator *c, const struct wire_head *head, struct rpc_stream *in)
{
	const struct bytes *data;
	size_t pieces = 0;
	enum err err = ERR_OK;
	pthread_mutex_lock(&c->lock);
	size_t cut = next_cut(&c->cut_uploads);
	if (head->offset == 0) {
		buf_deinit(&c->part);
		buf_init(&c->part, CONTENT_MAX);
		c->part_digest = head->digest;
	} else if (head->offset != c->part.n || !digest_equal(&head->digest, &c->part_digest)) {
		err = err_set(ERR_STATE, "that is not where it ended");
	}
	pthread_mutex_unlock(&c->lock);
	while (err == ERR_OK && cut > 0) {
		err = rpc_stream_next(in, &data, &pieces);
		for (size_t i = 0; err == ERR_OK && i < pieces && cut > 0; i++) {
			size_t n = data[i].n < cut ? data[i].n : cut;
			pthread_mutex_lock(&c->lock);
			ENSURE(buf_append(&c->part, data[i].p, n) == ERR_OK);
			c->bytes_in += n;
			pthread_mutex_unlock(&c->lock);
			cut -= n;
		}
	}
	return cut == 0 ? err_set(ERR_UNAVAILABLE, "cut by the test") : err == ERR_END ? ERR_OK : err;
}

static inline enum err coordinator_upload(void *ctx, const struct peer *peer, struct rpc_stream *in, struct buf *reply)
{
	struct coordinator *c = ctx;
	struct wire_head head;
	(void)peer;
	TRY(rpc_stream_head(in, &head));
	TRY(coordinator_receive(c, &head, in));
	pthread_mutex_lock(&c->lock);
	struct buf content = c->part;
	c->part = (struct buf){0};
	struct digest got = digest_of(buf_bytes(&content));
	enum err err = fail_once(c, METHOD_UPLOAD_UPDATE);
	if (err == ERR_OK && !digest_equal(&got, &head.digest))
		err = err_set(ERR_MALFORMED, "digest: these are not the announced bytes");
	if (err == ERR_OK) {
		struct wire_receipt receipt = {
			.job = head.update.job, .round = head.update.round, .digest = head.digest};
		ENSURE(c->n_uploads < KEPT_MAX);
		c->heads[c->n_uploads] = head;
		c->uploads[c->n_uploads++] = content;
		content = (struct buf){0};
		receipt.digest.b[0] ^= c->receipt_of_another;
		err = c->refuse_upload != ERR_OK ? err_set(c->refuse_upload, "said the test")
						 : wire_receipt_pack(&receipt, reply);
	}
	pthread_mutex_unlock(&c->lock);
	buf_deinit(&content);
	return err;
}

static inline enum err coordinator_offset(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct coordinator *c = ctx;
	struct wire_upload_offset_request asked;
	struct wire_upload_offset_reply answer = {0};
	(void)peer;
	TRY(wire_upload_offset_request_unpack(request, &asked));
	pthread_mutex_lock(&c->lock);
	c->n_offsets++;
	enum err err = fail_once(c, METHOD_UPLOAD_OFFSET);
	if (digest_equal(&asked.digest, &c->part_digest))
		answer.offset = c->part.n;
	answer.offset += c->offset_lie;
	c->offset_lie = 0;
	pthread_mutex_unlock(&c->lock);
	TRY(err);
	return wire_upload_offset_reply_pack(&answer, reply);
}

static inline enum err coordinator_report(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct coordinator *c = ctx;
	(void)peer;
	(void)reply;
	pthread_mutex_lock(&c->lock);
	enum err err = fail_once(c, METHOD_REPORT);
	if (err == ERR_OK && c->n_reports < KEPT_MAX)
		err = wire_report_unpack(request, &c->reports[c->n_reports++]);
	pthread_mutex_unlock(&c->lock);
	return err;
}

static const struct rpc_handler coordinator_handlers[METHOD_COUNT] = {
	[METHOD_NEXT_TASK] = {.parked = coordinator_task},       [METHOD_FETCH] = {.download = coordinator_fetch},
	[METHOD_UPLOAD_UPDATE] = {.upload = coordinator_upload}, [METHOD_UPLOAD_OFFSET] = {.unary = coordinator_offset},
	[METHOD_REPORT] = {.unary = coordinator_report},
};

/* The job of `yaml` on models of two inputs and the classes neg and pos; files of the models go to `dir`. */
static inline void coordinator_plan(struct coordinator *c, const char *dir, const char *yaml)
{
	char path[PATH_SIZE];
	struct job_config config;
	struct manifest *manifest;
	struct model *m;
	static const char description[] =
		"name: t\ninput: [2]\nclasses: [neg, pos]\nlayers:\n  - {op: linear, name: body, out: 4}\n"
		"  - {op: relu}\n  - {op: linear, name: head, out: outputs}\n";
	temp_write(dir, "model.yaml", description, sizeof description - 1);
	assert_ok(model_load_description(path_join(path, dir, "model.yaml"), &m));
	path_join(path, dir, "model.safetensors");
	buf_deinit(&c->source);
	buf_deinit(&c->other);
	buf_deinit(&c->config);
	buf_deinit(&c->manifest);
	model_init(m, 2);
	assert_ok(safetensors_save(path, m, NULL));
	assert_ok(file_read(path, 1 << 20, &c->other));
	model_init(m, 1);
	assert_ok(safetensors_save(path, m, NULL));
	assert_ok(file_read(path, 1 << 20, &c->source));
	temp_write(dir, "job.yaml", yaml, strlen(yaml));
	assert_ok(config_load(job_rows, path_join(path, dir, "job.yaml"), &config));
	assert_ok(manifest_build(m, &config.train.freeze, &config.local, &manifest));
	buf_init(&c->config, 1 << 16);
	buf_init(&c->manifest, MANIFEST_MAX);
	assert_ok(config_canonical(job_wire_rows, &config, &c->config));
	assert_ok(manifest_canonical(manifest, &c->manifest));
	config_free(job_rows, &config);
	manifest_free(manifest);
	model_free(m);
}

/* The next line of the script. `other`: the base is not the source. */
static inline struct wire_task *coordinator_add(struct coordinator *c, enum wire_task_kind kind, uint64_t job,
						uint32_t round, bool other)
{
	ENSURE(c->n_script < SCRIPT_MAX);
	struct wire_task *t = &c->script[c->n_script++];
	const struct buf *base = other ? &c->other : &c->source;
	*t = (struct wire_task){.kind = kind,
				.job = job,
				.round = round,
				.rounds = 3,
				.source = digest_of(buf_bytes(&c->source)),
				.source_size = c->source.n,
				.base = digest_of(buf_bytes(base)),
				.base_size = base->n,
				.deadline_in_ms = 600000,
				.job_state = kind == WIRE_TASK_FINISHED ? WIRE_JOB_DONE : WIRE_JOB_RUNNING};
	snprintf(t->job_name, sizeof t->job_name, "job%d", (int)job);
	return t;
}

static inline void coordinator_start(struct coordinator *c)
{
	struct rpc_server_config config = fixture_server_config(coordinator_handlers, c);
	config.gone = coordinator_gone;
	*c = (struct coordinator){0};
	pthread_mutex_init(&c->lock, NULL);
	assert_ok(rpc_server_start(&config, &c->server));
}

static inline void coordinator_stop(struct coordinator *c)
{
	rpc_server_stop(c->server, 1000);
	for (size_t i = 0; i < c->n_uploads; i++)
		buf_deinit(&c->uploads[i]);
	buf_deinit(&c->part);
	buf_deinit(&c->source);
	buf_deinit(&c->other);
	buf_deinit(&c->config);
	buf_deinit(&c->manifest);
	pthread_mutex_destroy(&c->lock);
}

#endif
