/*
 * Messages on their way. What is sent arrives after a random time, and therefore in any order; perhaps twice, perhaps never: then the sender
 * tries again after its time-out. The messages of one stream arrive in their order (TCP), but a stream may stall, be cut, or go on when its
 * sender has long given it up; who has gone may be noticed late or not at all.
 *
 * What the service does in front of the engine is done here: the roster is asked with every message.
 */
#include "sim/sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int64_t net_delay(struct sim *s)
{
	int64_t mean = s->healed ? 20 : s->weather.delay_ms;
	return 1 + (int64_t)rng_below(&s->rng, (uint64_t)(2 * mean));
}

bool net_chance(struct sim *s, double probability)
{
	return !s->healed && rng_uniform(&s->rng) < probability;
}

static const char *name_of(const struct sim *s, uint32_t who)
{
	return who == SIM_NOBODY ? "admin" : s->plants[who].name;
}

static bool is_let_in(const struct sim *s, uint32_t who)
{
	return who == SIM_NOBODY || registry_is_enrolled(s->host.registry, ROLE_PLANT, s->plants[who].name);
}

/* ---- calls that wait ---- */

static void send_call(struct sim *s, uint32_t who, uint32_t request, uint64_t seen, uint32_t ends, uint64_t job)
{
	struct call *c = mem_new(sizeof *c);
	*c = (struct call){.who = who, .request = request, .seen = seen, .ends = ends, .job = job, .next = s->calls};
	c->counts = ends != 0;
	s->calls = c;
	sim_later(s, net_delay(s), EVENT_CALL, who, 0, c);
}

void net_ask(struct sim *s, uint32_t who, uint32_t request, uint64_t seen, uint32_t ends, uint64_t job)
{
	if (!net_chance(s, s->weather.loss))
		send_call(s, who, request, seen, ends, job);
	else
		cover("a lost call");
	if (net_chance(s, s->weather.repeat)) {
		cover("a repeated call");
		send_call(s, who, request, seen, ends, job);
	}
}

static void send_answer(struct sim *s, enum event_kind kind, const struct answer *a)
{
	if (net_chance(s, s->weather.loss)) {
		cover(kind == EVENT_ANSWER ? "a lost answer" : "a lost receipt");
		return;
	}
	struct answer *copy = mem_new(sizeof *copy);
	*copy = *a;
	sim_later(s, net_delay(s), kind, a->who, 0, copy);
}

static void unpack(struct sim *s, struct answer *a, struct bytes reply)
{
	struct wire_watch_reply watch;
	enum err err;
	if (a->watches) {
		err = wire_watch_reply_unpack(reply, &watch);
		if (err == ERR_OK) {
			a->watched.job = watch.job.job;
			a->state = watch.job.state;
			a->version = watch.version;
			wire_watch_reply_free(&watch);
		}
	} else {
		struct wire_task task;
		err = wire_task_unpack(reply, &task);
		if (err == ERR_OK) {
			struct digest base = digest_of(buf_bytes(&task.base_content));
			if (task.base_content.n > 0 &&
			    (task.base_content.n != task.base_size || !digest_equal(&base, &task.base)))
				sim_violated(s, "the base that comes with a task is its base", "job %" PRIu64,
					     task.job);
			cover(task.base_content.n > 0 ? "a base that comes with its task" : "a task without a base");
			a->task = task;
			a->task.config = a->task.manifest = a->task.base_content = (struct buf){0};
			wire_task_free(&task);
		}
	}
	if (err != ERR_OK)
		sim_violated(s, "answers can be read", "%s", err_text());
}

static void open_call(struct sim *s, struct call *c)
{
	if (s->n_open % 64 == 0)
		s->open = mem_grow(s->open, s->n_open + 64, sizeof *s->open);
	c->place = s->n_open;
	s->open[s->n_open++] = c;
	c->asked = true;
}

static void close_call(struct sim *s, struct call *c)
{
	s->open[c->place] = s->open[--s->n_open];
	s->open[c->place]->place = c->place;
}

static struct sim *answered; /* engine_task() has no further argument for its answer */

static void take_answer(void *arg, enum err code, struct rpc_reply *reply)
{
	struct sim *s = answered;
	struct call *c = arg;
	struct answer a = {.who = c->who, .request = c->request, .code = code, .watches = c->who == SIM_NOBODY};
	if (++c->answers > 1 || c->forgotten || !c->asked || c->life != s->host.life) {
		sim_violated(s, "a call is answered once", "%s: %u answers%s", name_of(s, c->who), c->answers,
			     c->forgotten ? ", and nobody is there" : "");
		return;
	}
	close_call(s, c);
	if (code == ERR_OK)
		unpack(s, &a, rpc_reply_bytes(reply));
	/* A machine that has crashed says nothing more. */
	if (s->host.dying || s->disk.tripped)
		return;
	check_answer(s, c, &a);
	send_answer(s, EVENT_ANSWER, &a);
}

void net_call_arrives(struct sim *s, const struct event *e)
{
	struct call *c = e->data;
	struct answer a = {.who = c->who, .request = c->request, .watches = c->who == SIM_NOBODY};
	answered = s;
	c->life = s->host.life;
	c->since_ms = s->now;
	if (!s->host.up || !is_let_in(s, c->who)) {
		a.code = s->host.up ? ERR_DENIED : ERR_UNAVAILABLE;
		send_answer(s, EVENT_ANSWER, &a);
		return;
	}
	open_call(s, c);
	/* Who does not say is taken to have seen what there was when it came. */
	const struct book_job *seen = book_job(s, c->seen);
	if (!c->counts && seen != NULL)
		c->ends = seen->ends;
	if (c->who == SIM_NOBODY) {
		struct wire_watch_request request = {.job = c->job, .seen = c->seen};
		engine_watch(s->host.engine, "admin", &request, take_answer, c);
	} else {
		struct wire_task_request request = {.finished_job = c->seen, .software = "sim"};
		request.finished_ends = c->counts ? c->ends : 0;
		engine_task(s->host.engine, s->plants[c->who].name, &request, take_answer, c);
	}
	host_touch(s);
}

/* The connection has ended. The coordinator may see it at once, late, or never. */
void net_hang_up(struct sim *s, uint32_t who, uint32_t request)
{
	for (struct call *c = s->calls; c != NULL; c = c->next) {
		if (c->who == who && c->request == request && !net_chance(s, 0.3))
			sim_later(s, net_delay(s), EVENT_HANGUP, who, 0, c);
	}
}

void net_hang_up_arrives(struct sim *s, const struct event *e)
{
	struct call *c = e->data;
	if (!s->host.up || !c->asked || c->life != s->host.life)
		return;
	bool waited = engine_forget(s->host.engine, name_of(s, c->who), c);
	if (waited == (c->answers > 0 || c->forgotten))
		sim_violated(s, "a call is answered once", "%s has hung up: the engine says it %s", name_of(s, c->who),
			     waited ? "waited, but it has an answer" : "did not wait, but it has no answer");
	if (!waited || c->forgotten)
		return;
	c->forgotten = true;
	close_call(s, c);
	cover("a call that is forgotten");
}

/* ---- uploads ---- */

static void end_stream(struct sim *s, struct stream *t)
{
	size_t at = 0;
	while (s->streams[at] != t)
		at++;
	s->streams[at] = s->streams[--s->n_streams];
	free(t->got);
	free(t->content);
	free(t);
}

void net_upload(struct sim *s, struct stream *t)
{
	static const char *const honest = "an update";
	if (s->n_streams % 64 == 0)
		s->streams = mem_grow(s->streams, s->n_streams + 64, sizeof *s->streams);
	s->streams[s->n_streams++] = t;
	sim_say(s, "%s: sends %s for job %" PRIu64 " round %u", s->plants[t->who].name,
		t->lie != NULL ? t->lie : honest, t->head.update.job, t->head.update.round);
	sim_later(s, net_delay(s), EVENT_STREAM, t->who, 0, t);
}

void net_abandon(struct sim *s, uint32_t who)
{
	for (size_t i = 0; i < s->n_streams; i++) {
		if (s->streams[i]->who == who && s->streams[i]->lie == NULL)
			s->streams[i]->abandoned = true;
	}
}

bool net_is_current(const struct sim *s, const struct stream *t)
{
	return t->upload != NULL && t->resumes == s->book.jobs[t->head.update.job]->resumes;
}

bool net_uploading(const struct sim *s, uint32_t who, uint64_t job)
{
	for (size_t i = 0; i < s->n_streams; i++) {
		const struct stream *t = s->streams[i];
		if (t->upload != NULL && t->who == who && t->head.update.job == job && net_is_current(s, t))
			return true;
	}
	return false;
}

bool net_receiving(const struct sim *s, uint32_t who, uint64_t job, uint32_t made)
{
	for (size_t i = 0; i < s->n_streams; i++) {
		const struct stream *t = s->streams[i];
		if (t->upload != NULL && t->who == who && t->head.update.job == job && t->head.update.round == made)
			return true;
	}
	return false;
}

/* The upload is over, with a receipt or a refusal. */
static void reply(struct sim *s, struct stream *t, enum err code, const struct wire_receipt *receipt)
{
	struct answer a = {.who = t->who, .request = t->request, .code = code};
	if (code == ERR_OK)
		a.receipt = *receipt;
	sim_say(s, "%s: %s for job %" PRIu64 " round %u: %s", s->plants[t->who].name,
		t->lie != NULL ? t->lie : "an update", t->head.update.job, t->head.update.round, err_name(code));
	if (t->lie != NULL)
		cover(t->lie);
	else if (!s->disk.tripped)
		send_answer(s, EVENT_RECEIPT, &a);
	end_stream(s, t);
}

/* Before its judgement is known to anybody: as the service does it. */
static void drop_upload(struct stream *t, enum err err)
{
	if (err == ERR_UNAVAILABLE)
		engine_upload_suspend(t->upload);
	else
		engine_upload_abort(t->upload);
	t->upload = NULL;
}

/* The connection of the stream ends without a word. */
static void cut(struct sim *s, struct stream *t)
{
	struct answer a = {.who = t->who, .request = t->request, .code = ERR_UNAVAILABLE};
	drop_upload(t, ERR_UNAVAILABLE);
	cover("a stream that is cut");
	if (t->lie == NULL && !t->abandoned)
		send_answer(s, EVENT_RECEIPT, &a);
	end_stream(s, t);
	host_touch(s);
}

static void check_receipt(struct sim *s, const struct stream *t, const struct wire_receipt *r, bool repeats)
{
	const struct book_job *j = book_job(s, t->head.update.job);
	const struct book_update *u = j != NULL ? book_made(j, t->head.update.round, t->who, NULL) : NULL;
	if (u == NULL || r->job != t->head.update.job || r->round != t->head.update.round ||
	    !digest_equal(&r->digest, &u->digest) || r->time_ms != (uint64_t)u->time_ms || r->repeated != repeats)
		sim_violated(s, "a receipt is of what counts", "%s, job %" PRIu64 " round %u", s->plants[t->who].name,
			     t->head.update.job, t->head.update.round);
}

/* Where to go on: an answer that may have grown old when the stream begins. */
static void ask_offset(struct sim *s, struct stream *t)
{
	struct wire_upload_offset_request request = {.job = t->head.update.job,
						     .round = t->head.update.round,
						     .size = t->head.size,
						     .digest = t->head.digest};
	struct wire_upload_offset_reply reply = {0};
	bool sure;
	uint64_t right = book_offset(s, t, &sure);
	engine_upload_offset(s->host.engine, s->plants[t->who].name, &request, &reply);
	if (reply.offset > t->head.size || (sure ? reply.offset != right : reply.offset != 0 && reply.offset > right))
		sim_violated(s, "an offset is what is there of the update",
			     "%s, job %" PRIu64 " round %u: %" PRIu64 " instead of %" PRIu64, s->plants[t->who].name,
			     t->head.update.job, t->head.update.round, reply.offset, right);
	t->asks = false;
	t->head.offset = reply.offset;
	t->at = (size_t)reply.offset;
	cover(reply.offset == 0 ? "an upload that has to begin at 0"
	      : t->at == t->n   ? "an upload that is there whole"
				: "an upload that goes on");
}

/* What is there of it: read by the oracle, before the coordinator does. */
static void look_at_part(struct sim *s, struct stream *t)
{
	char path[PATH_SIZE];
	struct file *f = NULL;
	uint64_t offset = t->head.offset, there = book_there(s, t, offset, path);
	t->got = mem_new((size_t)(offset <= there ? offset : 0) + t->n + 1);
	t->n_got = 0;
	if (offset == 0 || offset > there)
		return;
	ENSURE(file_open_read(path, &f) == ERR_OK);
	ENSURE(file_read_at(f, 0, t->got, (size_t)offset) == ERR_OK);
	file_close(f);
	t->n_got = (size_t)offset;
	cover_expect("an update that lacks nothing but its row");
	if (strstr(path, ".update") != NULL)
		cover("an update that lacks nothing but its row");
}

static void begin(struct sim *s, struct stream *t)
{
	struct wire_receipt receipt = {0};
	bool repeats;
	look_at_part(s, t);
	errors right = book_judge(s, t, &repeats);
	enum err err = engine_upload_begin(s->host.engine, s->plants[t->who].name, &t->head, &t->upload, &receipt);
	t->begun = true;
	t->progress_ms = s->now;
	if (err != ERR_OK)
		t->upload = NULL;
	check_error(s, "heads are judged rightly", s->plants[t->who].name, err, right);
	if (err == ERR_OK && t->upload != NULL) {
		t->resumes = s->book.jobs[t->head.update.job]->resumes;
		if (repeats)
			sim_violated(s, "none counts twice", "%s may send again what counts already",
				     s->plants[t->who].name);
		check_left(s, t->who, t->head.update.job);
		return;
	}
	if (err == ERR_OK) {
		cover("a receipt for what counted before");
		check_receipt(s, t, &receipt, true);
	}
	reply(s, t, err, &receipt);
}

static void cover_counted(struct sim *s, const struct stream *t, const struct book_job *j)
{
	cover("an update that counts");
	cover_expect("an update that comes late and counts");
	cover_expect("an update that counts in the time of grace");
	cover_expect("an update that has come in pieces and counts");
	if (j->round > t->head.update.round)
		cover("an update that comes late and counts");
	if (sim_wall(s) >= j->rounds[j->round].deadline_ms)
		cover("an update that counts in the time of grace");
	if (t->head.offset > 0)
		cover("an update that has come in pieces and counts");
}

/* The oracle counts first: watchers are told of the row while the call still runs. */
static void commit(struct sim *s, struct stream *t)
{
	struct wire_receipt receipt = {0};
	errors right = book_judge_end(s, t);
	const struct book_job *j = book_job(s, t->head.update.job);
	uint32_t round = j->round;
	bool expected = (right & ONLY(ERR_OK)) != 0;
	if (expected)
		book_count(s, t);
	enum err err = engine_upload_commit(t->upload, &receipt);
	t->upload = NULL;
	if (err != ERR_OK && expected) {
		struct book_update u = book_discount(s, t);
		if (host_commit_failed(s))
			doubt_update(s, j->id, round, t->who, u);
		else
			free(u.content);
	}
	check_error(s, "updates are judged rightly", t->lie != NULL ? t->lie : "an update", err, right);
	if (err == ERR_OK) {
		check_receipt(s, t, &receipt, false);
		cover_counted(s, t, j);
	} else if (err == ERR_UNAVAILABLE && !host_failed(s)) {
		cover("an update that has to wait for the next round");
	}
	reply(s, t, err, &receipt);
	host_touch(s);
}

static void feed(struct sim *s, struct stream *t)
{
	size_t rest = t->n - t->at, n = 1 + (size_t)rng_below(&s->rng, rest < 700 ? rest : 700);
	n = net_chance(s, 0.5) || n < rest / 4 ? n : rest;
	/* An address sanitizer sees whoever reads beyond the piece. */
	uint8_t *piece = mem_new(n);
	memcpy(piece, t->content + t->at, n);
	memcpy(t->got + t->n_got, piece, n);
	t->n_got += n;
	t->at += n;
	errors right = net_is_current(s, t) ? book_judge_open(s, &t->head) : ONLY(ERR_STALE);
	if (right & ONLY(ERR_OK))
		right = (right & ~ONLY(ERR_OK)) | book_judge_piece(s, t, n);
	enum err err = engine_upload_add(t->upload, &(struct bytes){piece, n}, 1);
	t->progress_ms = s->now;
	free(piece);
	check_error(s, "updates are judged rightly", t->lie != NULL ? t->lie : "an update", err, right);
	if (err == ERR_OK)
		return;
	drop_upload(t, err);
	reply(s, t, err, NULL);
	host_touch(s);
}

void net_stream_arrives(struct sim *s, const struct event *e)
{
	struct stream *t = e->data;
	struct answer a = {.who = t->who, .request = t->request, .code = ERR_UNAVAILABLE};
	if (!s->host.up || (t->begun && t->life != s->host.life)) {
		if (t->lie == NULL && !t->abandoned)
			send_answer(s, EVENT_RECEIPT, &a);
		end_stream(s, t);
		return;
	}
	t->life = s->host.life;
	if (!is_let_in(s, t->who)) {
		drop_upload(t, ERR_DENIED);
		reply(s, t, ERR_DENIED, NULL);
		host_touch(s);
		return;
	}
	bool whole = t->at == t->n;
	/* A sender that has gone: most of its streams are cut, some arrive all the same. */
	if (t->begun && (net_chance(s, s->weather.cut) || (t->abandoned && rng_below(&s->rng, 2) == 0))) {
		cut(s, t);
		return;
	}
	uint64_t streams = s->n_streams;
	if (t->asks)
		ask_offset(s, t);
	else if (!t->begun)
		begin(s, t);
	else if (whole)
		commit(s, t);
	else
		feed(s, t);
	if (s->n_streams < streams)
		return;
	int64_t pause = net_chance(s, s->weather.stall) ? 1000 + (int64_t)rng_below(&s->rng, 30000) : net_delay(s) / 4;
	sim_later(s, pause, EVENT_STREAM, t->who, 0, t);
}

/* ---- reports ---- */

void net_report(struct sim *s, uint32_t who, const struct wire_report *report, bool is_lie)
{
	int copies = net_chance(s, s->weather.loss) ? 0 : net_chance(s, s->weather.repeat) ? 2 : 1;
	for (int i = 0; i < copies; i++) {
		struct report *r = mem_new(sizeof *r);
		*r = (struct report){.who = who, .report = *report, .is_lie = is_lie};
		sim_later(s, net_delay(s), EVENT_REPORT, who, 0, r);
	}
}

void net_report_arrives(struct sim *s, const struct event *e)
{
	const struct report *r = e->data;
	if (!s->host.up || !is_let_in(s, r->who))
		return;
	errors right = book_judge_report(s, r);
	enum err err = engine_report(s->host.engine, s->plants[r->who].name, &r->report);
	check_error(s, "reports are judged rightly", s->plants[r->who].name, err, right);
	if (r->is_lie)
		cover("a false report");
}

/* ---- the end of a life ---- */

void net_break(struct sim *s, bool told)
{
	(void)told;
	for (size_t i = 0; i < s->n_streams; i++) {
		drop_upload(s->streams[i], ERR_UNAVAILABLE);
	}
	/* Who waited sees the connection break, sooner or later; its own time-out is the last resort. */
	for (struct call *c = s->calls; c != NULL; c = c->next) {
		struct answer a = {.who = c->who, .request = c->request, .code = ERR_UNAVAILABLE};
		a.watches = c->who == SIM_NOBODY;
		if (c->asked && c->life == s->host.life && c->answers == 0 && !c->forgotten)
			send_answer(s, EVENT_ANSWER, &a);
	}
}

void net_drop(struct sim *s)
{
	for (struct call *c = s->calls, *next; c != NULL; c = next) {
		next = c->next;
		free(c);
	}
	while (s->n_streams > 0)
		end_stream(s, s->streams[0]);
	free(s->streams);
	free(s->open);
}
