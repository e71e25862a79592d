/*
 * The coordinator as a whole, over the network: real servers and clients in one process, members enrolled with real join codes.
 */
#include "coordinator/stage.h"

#include "base/clock.h"
#include "certs/joincode.h"
#include "coordinator/daemon.h"
#include "coordinator/federation.h"
#include "crypto/tls.h"
#include "rpc/client.h"

#include <pthread.h>

static char *scratch;
static char dir[PATH_SIZE], settings_path[PATH_SIZE];
static struct daemon *coordinator;
static struct rpc_client *admin;

/* ---- clients ---- */

static struct rpc_client *client_of(const struct credential *c, const char *address)
{
	struct rpc_client_config config = {
		.address = address,
		.ca_pem = buf_bytes(&c->ca_pem),
		.key_pem = buf_bytes(&c->key_pem),
		.cert_pem = buf_bytes(&c->cert_pem),
		.federation = "acme",
	};
	struct rpc_client *client;
	assert_ok(rpc_client_new(&config, &client));
	return client;
}

static struct rpc_client *client_in(const char *folder)
{
	char path[PATH_SIZE];
	struct credential c;
	assert_ok(credential_load(path_join(path, folder[0] == 'o' ? dir : scratch, folder), clock_wall_ms(), &c));
	struct rpc_client *client = client_of(&c, daemon_address(coordinator));
	credential_free(&c);
	return client;
}

/* A call as a function of its messages' structs. */
#define CALLER(name, method, in_name, in_type, out_name, out_type)                                                     \
	static enum err name(struct rpc_client *c, const struct in_type *in, struct out_type *out)                     \
	{                                                                                                              \
		struct buf request, reply = {0};                                                                       \
		buf_init(&request, 1 << 20);                                                                           \
		assert_ok(wire_##in_name##_pack(in, &request));                                                        \
		enum err err = rpc_client_call(c, method, buf_bytes(&request), 0, &reply);                             \
		if (err == ERR_OK)                                                                                     \
			assert_ok(wire_##out_name##_unpack(buf_bytes(&reply), out));                                   \
		buf_deinit(&request);                                                                                  \
		buf_deinit(&reply);                                                                                    \
		return err;                                                                                            \
	}

CALLER(call_invite, METHOD_INVITE, invite_request, wire_invite_request, invite_reply, wire_invite_reply)
CALLER(call_enroll, METHOD_ENROLL, enroll_request, wire_enroll_request, enroll_reply, wire_enroll_reply)
CALLER(call_task, METHOD_NEXT_TASK, task_request, wire_task_request, task, wire_task)
CALLER(call_start, METHOD_START_JOB, start_job, wire_start_job, job_ref, wire_job_ref)
CALLER(call_jobs, METHOD_LIST_JOBS, job_ref, wire_job_ref, jobs, wire_jobs)
CALLER(call_rounds, METHOD_LIST_ROUNDS, job_ref, wire_job_ref, rounds, wire_rounds)
CALLER(call_watch, METHOD_WATCH, watch_request, wire_watch_request, watch_reply, wire_watch_reply)

static enum err revoke_member(enum role role, const char *name)
{
	struct wire_revoke_request asked = {.role = role};
	struct buf request, reply = {0};
	snprintf(asked.name, sizeof asked.name, "%.60s", name);
	buf_init(&request, 1024);
	assert_ok(wire_revoke_request_pack(&asked, &request));
	enum err err = rpc_client_call(admin, METHOD_REVOKE, buf_bytes(&request), 0, &reply);
	buf_deinit(&request);
	buf_deinit(&reply);
	return err;
}

static enum err call_revoke(const char *name)
{
	return revoke_member(ROLE_PLANT, name);
}

struct source {
	struct bytes rest;
	size_t piece;
};

static enum err next_piece(void *arg, struct bytes *ret_piece)
{
	struct source *s = arg;
	size_t n = s->rest.n < s->piece ? s->rest.n : s->piece;
	if (n == 0)
		return ERR_END;
	*ret_piece = bytes_of(s->rest.p, n);
	s->rest = bytes_of(s->rest.p + n, s->rest.n - n);
	return ERR_OK;
}

static enum err publish(struct bytes content, const struct wire_head *head, struct wire_publish_reply *out)
{
	struct source source = {content, 1000};
	struct buf reply = {0};
	enum err err = rpc_client_upload(admin, METHOD_PUBLISH, head, next_piece, &source, &reply);
	if (err == ERR_OK)
		assert_ok(wire_publish_reply_unpack(buf_bytes(&reply), out));
	buf_deinit(&reply);
	return err;
}

struct sink {
	struct wire_head head;
	struct buf content;
};

static enum err take_head(void *arg, const struct wire_head *head)
{
	((struct sink *)arg)->head = *head;
	return ERR_OK;
}

static enum err take_data(void *arg, const struct bytes *pieces, size_t n)
{
	for (size_t i = 0; i < n; i++)
		TRY(buf_append(&((struct sink *)arg)->content, pieces[i].p, pieces[i].n));
	return ERR_OK;
}

static enum err fetch(struct rpc_client *c, const struct digest *digest, uint64_t offset, struct sink *out)
{
	struct wire_fetch_request asked = {.digest = *digest, .offset = offset};
	struct rpc_sink sink = {.head = take_head, .data = take_data, .arg = out};
	struct buf request;
	buf_init(&request, 256);
	buf_init(&out->content, 1 << 20);
	assert_ok(wire_fetch_request_pack(&asked, &request));
	enum err err = rpc_client_download(c, METHOD_FETCH, buf_bytes(&request), &sink);
	buf_deinit(&request);
	return err;
}

/* ---- a federation with plants ---- */

/* As `hansactl invite` and `hansa enroll` do it. */
static void enrol(enum role role, const char *name)
{
	struct wire_invite_request asked = {.role = role};
	struct wire_invite_reply invitation;
	struct joincode code;
	struct key *key;
	struct cert *cert;
	struct buf csr, ca;
	struct wire_enroll_request request = {.csr = {NULL, 0}};
	struct wire_enroll_reply reply;
	char path[PATH_SIZE];
	snprintf(asked.name, sizeof asked.name, "%.60s", name);
	assert_ok(call_invite(admin, &asked, &invitation));
	assert_ok(joincode_parse(invitation.code, &code));
	assert_string_equal(code.address, daemon_enrolment_address(coordinator));
	assert_ok(tls_fetch_ca(code.address, &code.ca_fingerprint, 10000, &ca));
	assert_ok(key_generate(KEY_P256, &key));
	assert_ok(csr_make(key, &code.id, &csr));
	request.csr = buf_bytes(&csr);
	memcpy(request.secret, code.secret, sizeof request.secret);
	struct rpc_client_config config = {.address = code.address, .ca_pem = buf_bytes(&ca), .federation = "acme"};
	struct rpc_client *client;
	assert_ok(rpc_client_new(&config, &client));
	assert_ok(call_enroll(client, &request, &reply));
	rpc_client_free(client);
	assert_ok(cert_parse(buf_bytes(&reply.certificate), &cert));
	assert_ok(credential_save(path_join(path, scratch, name), key, cert, buf_bytes(&ca), reply.address));
	wire_enroll_reply_free(&reply);
	cert_free(cert);
	key_free(key);
	buf_deinit(&csr);
	buf_deinit(&ca);
}

static void enrol_plant(const char *name)
{
	enrol(ROLE_PLANT, name);
}

static void start(void)
{
	assert_ok(daemon_start(settings_path, &coordinator));
	log_set_level(LOG_LEVEL_ERROR);
	admin = client_in("operator");
}

static void stop(void)
{
	rpc_client_free(admin);
	daemon_stop(coordinator, 5000);
	coordinator = NULL;
}

static int setup(void **state)
{
	(void)state;
	const char *hosts[] = {"127.0.0.1", NULL};
	struct federation_plan plan = {
		.name = "acme", .listen = "127.0.0.1:0", .enrol_listen = "127.0.0.1:0", .hosts = hosts};
	scratch = scratch_make();
	path_join(dir, scratch, "fed");
	path_join(settings_path, dir, SETTINGS_FILE);
	assert_ok(federation_create(dir, &plan, clock_wall_ms()));
	start();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	stop();
	scratch_remove(scratch);
	return 0;
}

static struct digest publish_model(const char *description, struct buf *ret_content)
{
	struct model *m = model_make(description, 1);
	struct wire_publish_reply reply;
	char path[PATH_SIZE];
	assert_ok(safetensors_save(path_join(path, scratch, "tiny.safetensors"), m, NULL));
	model_free(m);
	assert_ok(file_read(path, 1 << 20, ret_content));
	struct wire_head head = {.size = ret_content->n, .digest = digest_of(buf_bytes(ret_content))};
	assert_ok(publish(buf_bytes(ret_content), &head, &reply));
	assert_true(digest_equal(&reply.digest, &head.digest));
	return reply.digest;
}

static struct digest publish_tiny(struct buf *ret_content)
{
	return publish_model(tiny_model, ret_content);
}

static uint64_t start_job(const struct digest *source, const char *plants)
{
	struct job_config config;
	struct wire_start_job request = {.source = *source};
	struct wire_job_ref job;
	struct yaml *yaml;
	char *text = mem_printf("{name: net, rounds: 1, quorum: 1, plants: %s}", plants);
	assert_ok(yaml_parse("job", bytes_str(text), &yaml));
	assert_ok(config_read(job_wire_rows, yaml_root(yaml), &config));
	buf_init(&request.config, WIRE_CONFIG_MAX);
	assert_ok(config_canonical(job_wire_rows, &config, &request.config));
	assert_ok(call_start(admin, &request, &job));
	wire_start_job_free(&request);
	config_free(job_wire_rows, &config);
	yaml_free(yaml);
	free(text);
	return job.job;
}

/* ---- a plant that waits, in a thread of its own ---- */

struct waiting {
	pthread_t thread;
	struct rpc_client *client;
	enum err err;
	char text[256];
	struct wire_task task;
};

static void *wait_for_task(void *arg)
{
	struct waiting *w = arg;
	struct wire_task_request request = {.software = "test"};
	do {
		wire_task_free(&w->task);
		w->err = call_task(w->client, &request, &w->task);
	} while (w->err == ERR_OK && w->task.kind == WIRE_TASK_WAIT);
	snprintf(w->text, sizeof w->text, "%s", err_text());
	return NULL;
}

static void begin_waiting(struct waiting *w, const char *plant)
{
	*w = (struct waiting){.client = client_in(plant)};
	assert_int_equal(pthread_create(&w->thread, NULL, wait_for_task, w), 0);
}

static void end_waiting(struct waiting *w)
{
	assert_int_equal(pthread_join(w->thread, NULL), 0);
}

static void forget(struct waiting *w)
{
	wire_task_free(&w->task);
	rpc_client_free(w->client);
}

/* When the call has been seen: plants that wait are known by their last call. */
static void until_seen(const char *plant)
{
	for (int tries = 0; tries < 1000; tries++) {
		struct buf request, reply = {0};
		struct wire_members members;
		bool seen = false;
		buf_init(&request, 16);
		assert_ok(rpc_client_call(admin, METHOD_LIST_PLANTS, buf_bytes(&request), 0, &reply));
		assert_ok(wire_members_unpack(buf_bytes(&reply), &members));
		for (size_t i = 0; i < members.n; i++)
			seen |= strcmp(members.v[i].name, plant) == 0 && strcmp(members.v[i].software, "test") == 0;
		wire_members_free(&members);
		buf_deinit(&request);
		buf_deinit(&reply);
		if (seen)
			return;
		clock_sleep_ms(10);
	}
	fail_msg("%s never called", plant);
}

/* ---- tests ---- */

static enum err upload_zeros(struct waiting *w, struct wire_receipt *ret_receipt)
{
	struct manifest *m;
	struct buf reply = {0};
	assert_ok(manifest_parse(buf_bytes(&w->task.manifest), &m));
	size_t n = manifest_update_bytes(m);
	uint8_t *zeros = mem_new(n);
	struct source source = {bytes_of(zeros, n), 100};
	struct wire_head head = {.size = n, .digest = digest_of(source.rest), .has_update = true};
	head.update = (struct wire_update_head){
		.job = w->task.job, .round = w->task.round, .base = w->task.base, .manifest = m->digest, .samples = 3};
	enum err err = rpc_client_upload(w->client, METHOD_UPLOAD_UPDATE, &head, next_piece, &source, &reply);
	if (err == ERR_OK)
		assert_ok(wire_receipt_unpack(buf_bytes(&reply), ret_receipt));
	buf_deinit(&reply);
	manifest_free(m);
	free(zeros);
	return err;
}

static enum wire_job_state until_ended(uint64_t job)
{
	struct wire_watch_reply watch;
	for (uint64_t seen = 0;; seen = watch.version) {
		struct wire_watch_request asked = {.job = job, .seen = seen};
		assert_ok(call_watch(admin, &asked, &watch));
		enum wire_job_state state = watch.job.state;
		wire_watch_reply_free(&watch);
		if (state != WIRE_JOB_RUNNING)
			return state;
	}
}

static void a_job_over_the_network(void **state)
{
	(void)state;
	struct waiting w;
	struct wire_receipt receipt;
	struct wire_jobs jobs;
	struct wire_rounds rounds;
	struct buf content;
	struct sink sink;
	enrol_plant("bremen");
	begin_waiting(&w, "bremen");
	until_seen("bremen");
	struct digest source = publish_tiny(&content);
	uint64_t job = start_job(&source, "[bremen]");
	end_waiting(&w);
	assert_ok(w.err);
	assert_int_equal(w.task.kind, WIRE_TASK_TRAIN);
	assert_int_equal(w.task.job, job);
	assert_int_equal(w.task.base_content.n, content.n);
	assert_memory_equal(w.task.base_content.p, content.p, content.n);
	assert_ok(fetch(w.client, &w.task.base, 0, &sink));
	assert_int_equal(sink.content.n, content.n);
	assert_memory_equal(sink.content.p, content.p, content.n);
	buf_deinit(&sink.content);
	/* A cut download goes on where it was. */
	assert_ok(fetch(w.client, &w.task.base, 1000, &sink));
	assert_int_equal(sink.head.offset, 1000);
	assert_int_equal(sink.head.size, content.n);
	assert_memory_equal(sink.content.p, content.p + 1000, content.n - 1000);
	buf_deinit(&sink.content);
	assert_int_equal(fetch(w.client, &w.task.base, content.n + 1, &sink), ERR_LIMIT);
	buf_deinit(&sink.content);
	assert_ok(upload_zeros(&w, &receipt));
	assert_int_equal(receipt.job, job);
	assert_int_equal(until_ended(job), WIRE_JOB_DONE);
	struct wire_job_ref ref = {.job = job};
	assert_ok(call_jobs(admin, &ref, &jobs));
	assert_int_equal(jobs.n, 1);
	assert_true(jobs.v[0].config.n > 0);
	assert_ok(call_rounds(admin, &ref, &rounds));
	assert_int_equal(rounds.n, 1);
	assert_int_equal(rounds.v[0].n_contributions, 1);
	assert_string_equal(rounds.v[0].contributions[0].plant, "bremen");
	assert_int_equal(rounds.v[0].contributions[0].samples, 3);
	/* Once with the task, and what was fetched. */
	assert_int_equal(rounds.v[0].bytes_down, content.n + 2 * content.n - 1000);
	assert_ok(fetch(admin, &jobs.v[0].model, 0, &sink));
	struct digest got = digest_of(buf_bytes(&sink.content));
	assert_true(digest_equal(&got, &jobs.v[0].model));
	buf_deinit(&sink.content);
	wire_jobs_free(&jobs);
	wire_rounds_free(&rounds);
	ref.job = 99;
	assert_int_equal(call_rounds(admin, &ref, &rounds), ERR_NOT_FOUND);
	assert_int_equal(call_jobs(admin, &ref, &jobs), ERR_NOT_FOUND);
	buf_deinit(&content);
	forget(&w);
}

/* ---- an upload that is cut ---- */

/* Its update is over SPOOL_SMALL_MAX. */
static const char wide_model[] = "name: wide\n"
				 "input: [1, 32]\n"
				 "classes: [a, b, c]\n"
				 "layers:\n"
				 "  - {op: flatten}\n"
				 "  - {op: linear, name: f1, out: 2500}\n"
				 "  - {op: relu}\n"
				 "  - {op: linear, name: fc, out: 3}\n";

/* What is given to the stream, and another connection of the plant that asks how far it is. */
struct cut_source {
	struct source source;
	struct rpc_client *asks;
	struct wire_upload_offset_request request;
	uint64_t there;
};

static uint64_t ask_offset(struct rpc_client *c, const struct wire_upload_offset_request *asked)
{
	struct wire_upload_offset_reply answer;
	struct buf request, reply = {0};
	buf_init(&request, 256);
	assert_ok(wire_upload_offset_request_pack(asked, &request));
	assert_ok(rpc_client_call(c, METHOD_UPLOAD_OFFSET, buf_bytes(&request), 0, &reply));
	assert_ok(wire_upload_offset_reply_unpack(buf_bytes(&reply), &answer));
	buf_deinit(&request);
	buf_deinit(&reply);
	return answer.offset;
}

/* Gives 100 000 bytes, waits until the coordinator has some, and breaks off. */
static enum err break_off(void *arg, struct bytes *ret_piece)
{
	struct cut_source *s = arg;
	if (s->request.size - s->source.rest.n < 100000)
		return next_piece(&s->source, ret_piece);
	for (int tries = 0; tries < 1000 && s->there == 0; tries++) {
		s->there = ask_offset(s->asks, &s->request);
		clock_sleep_ms(10);
	}
	return err_set(ERR_CANCELLED, "cut");
}

static void a_cut_upload_goes_on(void **state)
{
	(void)state;
	struct waiting w;
	struct wire_receipt receipt;
	struct manifest *m;
	struct buf content, reply = {0};
	enrol_plant("bremen");
	begin_waiting(&w, "bremen");
	struct digest source = publish_model(wide_model, &content);
	uint64_t job = start_job(&source, "[bremen]");
	end_waiting(&w);
	assert_ok(w.err);
	assert_ok(manifest_parse(buf_bytes(&w.task.manifest), &m));
	size_t n = manifest_update_bytes(m);
	uint8_t *zeros = mem_new(n);
	struct wire_head head = {.size = n, .digest = digest_of(bytes_of(zeros, n)), .has_update = true};
	head.update = (struct wire_update_head){
		.job = job, .round = 1, .base = w.task.base, .manifest = m->digest, .samples = 3};
	struct cut_source cut = {.source = {bytes_of(zeros, n), 1000},
				 .asks = client_in("bremen"),
				 .request = {.job = job, .round = 1, .size = n, .digest = head.digest}};
	assert_int_equal(rpc_client_upload(w.client, METHOD_UPLOAD_UPDATE, &head, break_off, &cut, &reply),
			 ERR_CANCELLED);
	assert_true(cut.there > 0 && cut.there <= 100000);
	/* The cut stream may linger for a moment. */
	enum err err = ERR_UNAVAILABLE;
	for (int tries = 0; err == ERR_UNAVAILABLE && tries < 1000; tries++) {
		head.offset = ask_offset(cut.asks, &cut.request);
		assert_true(head.offset >= cut.there);
		struct source rest = {bytes_of(zeros + head.offset, n - head.offset), 5000};
		err = rpc_client_upload(w.client, METHOD_UPLOAD_UPDATE, &head, next_piece, &rest, &reply);
		if (err == ERR_UNAVAILABLE)
			clock_sleep_ms(10);
	}
	assert_ok(err);
	assert_ok(wire_receipt_unpack(buf_bytes(&reply), &receipt));
	assert_false(receipt.repeated);
	assert_true(digest_equal(&receipt.digest, &head.digest));
	buf_deinit(&reply);
	rpc_client_free(cut.asks);
	manifest_free(m);
	free(zeros);
	buf_deinit(&content);
	forget(&w);
}

static void models_of_other_jobs_are_not_given_out(void **state)
{
	(void)state;
	struct buf content;
	struct sink sink;
	enrol_plant("bremen");
	enrol_plant("hamburg");
	struct digest source = publish_tiny(&content);
	start_job(&source, "[bremen]");
	struct rpc_client *in = client_in("bremen"), *out = client_in("hamburg");
	assert_ok(fetch(in, &source, 0, &sink));
	buf_deinit(&sink.content);
	assert_int_equal(fetch(out, &source, 0, &sink), ERR_NOT_FOUND);
	buf_deinit(&sink.content);
	source.b[0] ^= 1;
	assert_int_equal(fetch(admin, &source, 0, &sink), ERR_NOT_FOUND);
	buf_deinit(&sink.content);
	buf_deinit(&content);
	rpc_client_free(in);
	rpc_client_free(out);
}

/* On an open connection, and while a call waits. */
static void a_revocation_works_at_once(void **state)
{
	(void)state;
	struct waiting w;
	struct wire_task task;
	struct wire_task_request request = {.software = "test"};
	enrol_plant("bremen");
	begin_waiting(&w, "bremen");
	until_seen("bremen");
	assert_ok(call_revoke("bremen"));
	end_waiting(&w);
	assert_int_equal(w.err, ERR_DENIED);
	assert_non_null(strstr(w.text, "revoked"));
	assert_fails(call_task(w.client, &request, &task), ERR_DENIED, "revoked");
	struct buf reply = {0};
	assert_fails(rpc_client_call(w.client, METHOD_REPORT, bytes_of("", 0), 0, &reply), ERR_DENIED, "revoked");
	buf_deinit(&reply);
	assert_int_equal(call_revoke("bremen"), ERR_NOT_FOUND);
	forget(&w);
	/* With a new invitation and a new key it is back. */
	enrol_plant("bremen");
	begin_waiting(&w, "bremen");
	until_seen("bremen");
	stop();
	end_waiting(&w);
	assert_int_equal(w.err, ERR_UNAVAILABLE);
	forget(&w);
	start();
}

static void only_models_are_published(void **state)
{
	(void)state;
	struct wire_publish_reply reply;
	struct buf content;
	char path[PATH_SIZE];
	struct bytes text = bytes_str("certainly not a model, but long enough to be something");
	struct wire_head head = {.size = text.n, .digest = digest_of(text)};
	assert_int_equal(publish(text, &head, &reply), ERR_MALFORMED);
	head.size = (uint64_t)1 << 40;
	assert_fails(publish(text, &head, &reply), ERR_LIMIT, "upload_bytes_max");
	publish_tiny(&content);
	head = (struct wire_head){.size = content.n - 1, .digest = digest_of(buf_bytes(&content))};
	assert_int_equal(publish(buf_bytes(&content), &head, &reply), ERR_LIMIT);
	head.size = content.n + 1;
	assert_int_equal(publish(buf_bytes(&content), &head, &reply), ERR_MALFORMED);
	head.size = content.n;
	head.digest.b[0] ^= 1;
	assert_fails(publish(buf_bytes(&content), &head, &reply), ERR_MALFORMED, "SHA-256");
	path_join(path, dir, "models");
	assert_int_equal(count_files(path, ""), 1);
	buf_deinit(&content);
}

/* ---- who may publish, and how much ---- */

struct lab_source {
	struct source source;
	bool revoked;
};

/* The lab is revoked in the middle of its stream. */
static enum err revoke_meanwhile(void *arg, struct bytes *ret_piece)
{
	struct lab_source *s = arg;
	if (!s->revoked && s->source.rest.n < 300000) {
		assert_ok(revoke_member(ROLE_LAB, "lab"));
		s->revoked = true;
	}
	return next_piece(&s->source, ret_piece);
}

static void a_revoked_lab_does_not_finish_what_it_has_begun(void **state)
{
	(void)state;
	struct model *m = model_make(wide_model, 2);
	struct buf content, reply = {0};
	char path[PATH_SIZE];
	enrol(ROLE_LAB, "lab");
	struct rpc_client *lab = client_in("lab");
	assert_ok(safetensors_save(path_join(path, scratch, "wide.safetensors"), m, NULL));
	model_free(m);
	assert_ok(file_read(path, 1 << 20, &content));
	struct lab_source source = {.source = {buf_bytes(&content), 1000}};
	struct wire_head head = {.size = content.n, .digest = digest_of(buf_bytes(&content))};
	assert_fails(rpc_client_upload(lab, METHOD_PUBLISH, &head, revoke_meanwhile, &source, &reply), ERR_DENIED,
		     "revoked");
	assert_true(source.revoked);
	path_join(path, dir, "models");
	assert_int_equal(count_files(path, ""), 0);
	rpc_client_free(lab);
	buf_deinit(&content);
}

/* The settings with one more line. */
static void start_with(const char *line)
{
	struct buf text;
	char path[PATH_SIZE];
	assert_ok(file_read(settings_path, 1 << 16, &text));
	text.max = text.n + 200;
	assert_ok(buf_printf(&text, "\n%s\n", line));
	assert_ok(file_replace(path_join(path, dir, "other.yaml"), buf_bytes(&text), 0600));
	buf_deinit(&text);
	assert_ok(daemon_start(path, &coordinator));
	log_set_level(LOG_LEVEL_ERROR);
	admin = client_in("operator");
}

static void models_leave_room_on_the_disk(void **state)
{
	(void)state;
	struct model *m = model_make(tiny_model, 1);
	struct wire_publish_reply reply;
	struct buf content;
	char path[PATH_SIZE];
	assert_ok(safetensors_save(path_join(path, scratch, "tiny.safetensors"), m, NULL));
	model_free(m);
	assert_ok(file_read(path, 1 << 20, &content));
	struct wire_head head = {.size = content.n, .digest = digest_of(buf_bytes(&content))};
	stop();
	start_with("disk_free_min: 1125899906842624");
	assert_fails(publish(buf_bytes(&content), &head, &reply), ERR_UNAVAILABLE, "disk_free_min");
	path_join(path, dir, "models");
	assert_int_equal(count_files(path, ""), 0);
	stop();
	start_with("disk_free_min: 0");
	assert_ok(publish(buf_bytes(&content), &head, &reply));
	assert_int_equal(count_files(path, ""), 1);
	buf_deinit(&content);
}

static void the_address_is_told(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	struct credential c;
	assert_ok(credential_load(path_join(path, dir, "operator"), clock_wall_ms(), &c));
	assert_string_equal(c.address, daemon_address(coordinator));
	credential_free(&c);
	/* The port of another server is not taken from it. */
	char *text =
		mem_printf("federation: acme\nadvertise: 127.0.0.1\nlisten: \"%s\"\n", daemon_address(coordinator));
	struct daemon *second;
	assert_ok(file_replace(path_join(path, dir, "second.yaml"), bytes_str(text), 0600));
	assert_int_equal(daemon_start(path, &second), ERR_IO);
	free(text);
}

/* As it should be: the operator works from another machine. */
static void it_serves_without_the_operators_credential(void **state)
{
	(void)state;
	char path[PATH_SIZE], away[PATH_SIZE];
	path_join(path, dir, "operator");
	path_join(away, scratch, "operator");
	stop();
	assert_int_equal(rename(path, away), 0);
	assert_ok(daemon_start(settings_path, &coordinator));
	daemon_stop(coordinator, 5000);
	assert_false(file_exists(path));
	assert_int_equal(rename(away, path), 0);
	start();
}

/* A model of a job whose file is gone: our trouble, not the plant's. */
static void a_lost_model_is_not_the_plants_fault(void **state)
{
	(void)state;
	struct buf content;
	struct sink sink;
	char path[PATH_SIZE], away[PATH_SIZE];
	enrol_plant("bremen");
	struct digest source = publish_tiny(&content);
	start_job(&source, "[bremen]");
	struct rpc_client *plant = client_in("bremen");
	path_join(path, dir, "models");
	path_join(away, dir, "away");
	assert_int_equal(rename(path, away), 0);
	assert_fails(fetch(plant, &source, 0, &sink), ERR_UNAVAILABLE, "try again");
	assert_null(strstr(err_text(), "models"));
	buf_deinit(&sink.content);
	assert_int_equal(rename(away, path), 0);
	assert_ok(fetch(plant, &source, 0, &sink));
	buf_deinit(&sink.content);
	buf_deinit(&content);
	rpc_client_free(plant);
}

static void reasons_and_reports_are_shown(void **state)
{
	(void)state;
	struct buf content, reply = {0}, request;
	struct wire_jobs jobs;
	struct wire_rounds rounds;
	enrol_plant("bremen");
	struct digest source = publish_tiny(&content);
	uint64_t job = start_job(&source, "[bremen]");
	struct rpc_client *plant = client_in("bremen");
	struct wire_report report = {.job = job, .round = 1, .model = source, .taken = true};
	report.metrics = (struct wire_metrics){.n = 1, .v = {{"accuracy", 0.5}}};
	buf_init(&request, 4096);
	assert_ok(wire_report_pack(&report, &request));
	assert_ok(rpc_client_call(plant, METHOD_REPORT, buf_bytes(&request), 0, &reply));
	buf_deinit(&reply);
	struct wire_job_ref ref = {.job = job};
	buf_reset(&request);
	assert_ok(wire_job_ref_pack(&ref, &request));
	assert_ok(rpc_client_call(admin, METHOD_STOP_JOB, buf_bytes(&request), 0, &reply));
	buf_deinit(&reply);
	until_ended(job);
	assert_ok(rpc_client_call(admin, METHOD_LIST_JOBS, buf_bytes(&request), 0, &reply));
	assert_ok(wire_jobs_unpack(buf_bytes(&reply), &jobs));
	buf_deinit(&reply);
	assert_string_equal(jobs.v[0].reason, "stopped by an operator");
	wire_jobs_free(&jobs);
	assert_ok(rpc_client_call(admin, METHOD_LIST_ROUNDS, buf_bytes(&request), 0, &reply));
	assert_ok(wire_rounds_unpack(buf_bytes(&reply), &rounds));
	buf_deinit(&reply);
	assert_string_equal(rounds.v[0].reason, "the job was stopped");
	assert_int_equal(rounds.v[0].n_reports, 1);
	assert_string_equal(rounds.v[0].reports[0].plant, "bremen");
	assert_true(rounds.v[0].reports[0].taken);
	assert_true(rounds.v[0].reports[0].metrics.v[0].value == 0.5);
	wire_rounds_free(&rounds);
	buf_deinit(&request);
	buf_deinit(&content);
	rpc_client_free(plant);
}

static int begin(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	assert_ok(tls_policy_install());
	rpc_init();
	return 0;
}

static int end(void **state)
{
	(void)state;
	rpc_shutdown();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_job_over_the_network, setup, teardown),
		cmocka_unit_test_setup_teardown(a_cut_upload_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(models_of_other_jobs_are_not_given_out, setup, teardown),
		cmocka_unit_test_setup_teardown(a_revocation_works_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(only_models_are_published, setup, teardown),
		cmocka_unit_test_setup_teardown(a_revoked_lab_does_not_finish_what_it_has_begun, setup, teardown),
		cmocka_unit_test_setup_teardown(models_leave_room_on_the_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(the_address_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(it_serves_without_the_operators_credential, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lost_model_is_not_the_plants_fault, setup, teardown),
		cmocka_unit_test_setup_teardown(reasons_and_reports_are_shown, setup, teardown),
	};
	return cmocka_run_group_tests(tests, begin, end);
}
