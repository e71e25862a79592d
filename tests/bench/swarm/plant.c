#include "swarm/plant.h"

#include "base/clock.h"
#include "client/backoff.h"
#include "swarm/enrol.h"
#include "swarm/transfer.h"
#include "update/manifest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	STACK_SIZE = 256 << 10,
	BACKOFF_FIRST_MS = 500,
	LATE_MAX_MS = 60 * 1000, /* a deadline that is further away is not waited for */
	LATE_MARGIN_MS = 300,
	HANGUP_MAX_MS = 2000,
	CONNECT_TRIES = 20,
};

struct plant {
	struct swarm *swarm;
	char name[ENROL_NAME_SIZE];
	struct credential cred;
	pthread_t thread;
	pthread_mutex_t lock; /* guards `client`, which hanging up replaces */
	struct rpc_client *client;
	struct backoff backoff;
	struct rng rng;
	uint64_t finished_job, skip_job, jobs;
	uint32_t skip_round;
	struct digest base; /* the last one that came whole */
	struct content content;
	uint64_t content_job; /* --prepared: what `content` was made for */
	enum err err;
	char text[1024];
};

/* ---- waiting ---- */

static enum err nap(struct plant *p, int64_t ms)
{
	struct swarm *s = p->swarm;
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&s->lock);
	while (!atomic_load(&s->stop) && pthread_cond_timedwait(&s->stopped, &s->lock, &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&s->lock);
	return atomic_load(&s->stop) ? err_set(ERR_CANCELLED, "stopped") : ERR_OK;
}

static bool is_worth_trying_again(enum err err)
{
	return err_is_transient(err) || err == ERR_IO || err == ERR_CRYPTO || err == ERR_INTERNAL;
}

/* ERR_OK: once more. */
static enum err recover(struct plant *p, enum err err)
{
	if (atomic_load(&p->swarm->stop))
		return err_set(ERR_CANCELLED, "stopped");
	if (!is_worth_trying_again(err))
		return err;
	tally_retry(p->swarm->tally, err);
	return nap(p, backoff_next(&p->backoff, &p->rng));
}

/* ---- the connection ---- */

static enum err connect_anew(struct plant *p)
{
	struct rpc_client_config config = {
		.address = p->swarm->operator.address, /* may have changed since the plant enrolled */
		.ca_pem = buf_bytes(&p->cred.ca_pem),
		.key_pem = buf_bytes(&p->cred.key_pem),
		.cert_pem = buf_bytes(&p->cred.cert_pem),
		.federation = p->cred.id.federation,
	};
	struct rpc_client *fresh = NULL, *old;
	uint64_t sent, received;
	TRY(rpc_client_new(&config, &fresh));
	pthread_mutex_lock(&p->lock);
	old = p->client;
	p->client = fresh;
	if (atomic_load(&p->swarm->stop))
		rpc_client_cancel(fresh);
	pthread_mutex_unlock(&p->lock);
	if (old != NULL) {
		rpc_client_get_bytes(old, &sent, &received);
		tally_bytes(p->swarm->tally, sent, received);
		rpc_client_free(old);
	}
	return ERR_OK;
}

static void disconnect(struct plant *p)
{
	uint64_t sent = 0, received = 0;
	pthread_mutex_lock(&p->lock);
	struct rpc_client *old = p->client;
	p->client = NULL;
	pthread_mutex_unlock(&p->lock);
	if (old != NULL)
		rpc_client_get_bytes(old, &sent, &received);
	tally_bytes(p->swarm->tally, sent, received);
	rpc_client_free(old);
}

/* Only so many handshakes at a time: a coordinator gives each one 10 s, and its machine does some hundred a second. */
static void gate(struct swarm *s, int change)
{
	pthread_mutex_lock(&s->lock);
	while (change > 0 && s->connecting >= (size_t)s->options->ramp && !atomic_load(&s->stop))
		pthread_cond_wait(&s->gate, &s->lock);
	s->connecting += (size_t)change;
	pthread_cond_signal(&s->gate);
	pthread_mutex_unlock(&s->lock);
}

/* Asks something cheap, to know that the connection stands. Coordinators before resuming do not know the question. */
static enum err say_hello(struct plant *p)
{
	enum err err = ERR_OK;
	uint64_t offset;
	struct digest any = digest_of(bytes_str(p->name));
	gate(p->swarm, +1);
	for (int tries = 0; tries < CONNECT_TRIES; tries++) {
		err = transfer_offset(p->client, 1, 1, &any, 4, &offset);
		if (err == ERR_CANCELLED || err == ERR_UNAUTHENTIC || err == ERR_DENIED)
			break;
		if (!err_is_transient(err)) {
			err = ERR_OK;
			break;
		}
		tally_retry(p->swarm->tally, err);
		if (nap(p, backoff_next(&p->backoff, &p->rng)) != ERR_OK)
			break;
	}
	gate(p->swarm, -1);
	backoff_reset(&p->backoff);
	return err;
}

/* ---- a round ---- */

static enum err take_base(struct plant *p, const struct wire_task *task)
{
	struct tally *tally = p->swarm->tally;
	if (task->base_content.n > 0) {
		struct digest got = digest_of(buf_bytes(&task->base_content));
		if (!digest_equal(&got, &task->base))
			return err_set(ERR_CORRUPT, "the base inside a task is not the one that it names");
		tally_base(tally, true, task->base_content.n);
		p->base = task->base;
		return ERR_OK;
	}
	if (digest_equal(&p->base, &task->base))
		return ERR_OK;
	struct transfer_fetch fetch = {.digest = task->base,
				       .size = task->base_size,
				       .rate = p->swarm->options->rate,
				       .stop = &p->swarm->stop};
	enum err err;
	while ((err = transfer_fetch(p->client, &fetch)) != ERR_OK) {
		err = recover(p, err);
		if (err != ERR_OK)
			break;
	}
	transfer_fetch_end(&fetch);
	TRY(err);
	backoff_reset(&p->backoff);
	tally_base(tally, false, task->base_size);
	p->base = task->base;
	return ERR_OK;
}

static enum err make_content(struct plant *p, const struct wire_task *task, struct digest *ret_manifest)
{
	struct manifest *m;
	TRY(manifest_parse(buf_bytes(&task->manifest), &m));
	if (!p->swarm->options->prepared || p->content_job != task->job)
		content_make(&p->content, m->n_travel, &p->rng);
	p->content_job = task->job;
	*ret_manifest = m->digest;
	manifest_free(m);
	return ERR_OK;
}

static void misstate(struct plant *p, enum mischief kind, struct wire_head *head)
{
	if (kind == MISCHIEF_DIGEST)
		head->digest.b[rng_below(&p->rng, DIGEST_SIZE)] ^= 1;
	if (kind == MISCHIEF_BASE)
		head->update.base.b[rng_below(&p->rng, DIGEST_SIZE)] ^= 1;
	if (kind == MISCHIEF_RANGE) {
		content_spoil(&p->content, &p->rng);
		head->digest = p->content.digest;
	}
}

struct attempt {
	enum mischief kind;
	bool resume; /* asks first how much the coordinator has */
	bool again;  /* it has been accepted before */
	bool cut;    /* it was cut on purpose */
};

static enum err judge(struct plant *p, const struct wire_head *head, const struct attempt *a,
		      const struct wire_receipt *receipt)
{
	if (mischief_is_refused(a->kind)) {
		tally_wrongly_accepted(p->swarm->tally, a->kind);
		return err_set(ERR_INTERNAL, "%s: an update with a wrong %s was accepted", p->name,
			       mischief_name(a->kind));
	}
	if (a->again && !receipt->repeated) {
		tally_wrongly_accepted(p->swarm->tally, MISCHIEF_REPEAT);
		return err_set(ERR_INTERNAL, "%s: an update was accepted twice", p->name);
	}
	if (receipt->job != head->update.job || !digest_equal(&receipt->digest, &head->digest))
		return err_set(ERR_MALFORMED, "%s: the receipt is for another update", p->name);
	return ERR_OK;
}

static void find_offset(struct plant *p, struct wire_head *head)
{
	uint64_t offset = 0;
	const struct wire_update_head *u = &head->update;
	if (transfer_offset(p->client, u->job, u->round, &head->digest, head->size, &offset) != ERR_OK || offset == 0 ||
	    offset > head->size)
		return; /* from the beginning */
	head->offset = offset;
	tally_resumed(p->swarm->tally, offset);
}

static enum err try_upload(struct plant *p, const struct wire_head *honest, struct attempt *a)
{
	const struct swarm_options *o = p->swarm->options;
	struct wire_head head = *honest;
	if (a->resume)
		find_offset(p, &head);
	misstate(p, a->kind, &head);
	struct transfer_upload u = {
		.content = &p->content,
		.at = head.offset,
		.rate = o->rate,
		.stop = &p->swarm->stop,
		.cut_at = a->kind == MISCHIEF_CUT ? 1 + rng_below(&p->rng, head.size) : UINT64_MAX,
		.stall_at = a->kind == MISCHIEF_STALL ? rng_below(&p->rng, head.size) : UINT64_MAX,
		.stall_ms = o->stall_ms,
	};
	struct wire_receipt receipt;
	struct tally_upload seen = {.plant = p->name, .begin_ms = tally_now(), .receipt = &receipt};
	enum err err = transfer_upload(p->client, &head, &u, &receipt);
	seen.end_ms = tally_now();
	seen.sent_ms = u.sent_ms;
	seen.bytes = head.size - head.offset;
	a->cut = u.was_cut;
	if (a->kind == MISCHIEF_RANGE)
		p->content_job = 0; /* it is spoilt */
	TRY(err);
	TRY(judge(p, &head, a, &receipt));
	tally_accepted(p->swarm->tally, &seen);
	return ERR_OK;
}

static struct wire_head honest_head(const struct plant *p, const struct wire_task *task, const struct digest *manifest)
{
	return (struct wire_head){
		.size = p->content.n,
		.digest = p->content.digest,
		.has_update = true,
		.update = {.job = task->job,
			   .round = task->round,
			   .base = task->base,
			   .manifest = *manifest,
			   .samples = 1 + (p->content.digest.b[0] & 63)},
	};
}

static enum err prepare(struct plant *p, const struct wire_task *task, struct wire_head *ret_head)
{
	struct digest manifest;
	TRY(make_content(p, task, &manifest));
	*ret_head = honest_head(p, task, &manifest);
	return ERR_OK;
}

/* What went wrong on purpose is made good: the next try is honest. */
static enum err send_update(struct plant *p, const struct wire_task *task, enum mischief kind)
{
	struct wire_head head;
	struct attempt a = {.kind = kind};
	TRY(prepare(p, task, &head));
	for (;;) {
		enum err err = try_upload(p, &head, &a);
		if (err == ERR_OK && a.kind == MISCHIEF_REPEAT) {
			a = (struct attempt){.again = true};
		} else if (err == ERR_OK) {
			backoff_reset(&p->backoff);
			return ERR_OK;
		} else if (a.cut) {
			tally_cut(p->swarm->tally);
			a = (struct attempt){.resume = true};
		} else if (mischief_is_refused(a.kind) && !is_worth_trying_again(err) && err != ERR_CANCELLED) {
			tally_refused(p->swarm->tally, a.kind, err);
			a = (struct attempt){.resume = false};
			TRY(prepare(p, task, &head));
		} else {
			a.resume = true;
			err = recover(p, err);
			if (err != ERR_OK && err != ERR_CANCELLED)
				tally_refused(p->swarm->tally, a.kind, err);
			TRY(err);
		}
	}
}

static enum err think(struct plant *p, const struct wire_task *task, enum mischief kind)
{
	int64_t ms = p->swarm->options->think_ms;
	if (ms > 0)
		TRY(nap(p, ms / 2 + (int64_t)rng_below(&p->rng, (uint64_t)ms + 1)));
	if (kind == MISCHIEF_LATE)
		TRY(nap(p, (int64_t)task->deadline_in_ms + LATE_MARGIN_MS));
	return ERR_OK;
}

/* Only what concerns the plant as a whole ends it. */
static enum err take_round(struct plant *p, const struct wire_task *task)
{
	enum mischief kind = mischief_draw(&p->swarm->options->mischief, &p->rng);
	if (kind == MISCHIEF_LATE && task->deadline_in_ms > LATE_MAX_MS)
		kind = MISCHIEF_NONE;
	tally_told(p->swarm->tally, task->job, task->round);
	if (p->swarm->options->wait_only) {
		p->skip_job = task->job;
		p->skip_round = task->round;
		return ERR_OK;
	}
	enum err err = take_base(p, task);
	if (err == ERR_OK)
		err = think(p, task, kind);
	if (err == ERR_OK)
		err = send_update(p, task, kind);
	if (err == ERR_STALE || err == ERR_STATE || err == ERR_DUPLICATE || err == ERR_NOT_FOUND)
		return ERR_OK; /* the round closed without it, and is counted as refused */
	return err;
}

/* ---- the loop ---- */

static enum err next_task(struct plant *p, struct wire_task *ret_task)
{
	struct wire_task_request request = {.finished_job = p->finished_job,
					    .software = "hansa-swarm",
					    .skip_job = p->skip_job,
					    .skip_round = p->skip_round};
	struct buf packed, reply = {0};
	bool hang_up = rng_uniform(&p->rng) < p->swarm->options->mischief.share[MISCHIEF_HANGUP];
	int64_t deadline_ms = hang_up ? 1 + (int64_t)rng_below(&p->rng, HANGUP_MAX_MS) : 0;
	buf_init(&packed, 1024);
	enum err err = wire_task_request_pack(&request, &packed);
	if (err == ERR_OK)
		err = rpc_client_call(p->client, METHOD_NEXT_TASK, buf_bytes(&packed), deadline_ms, &reply);
	if (err == ERR_OK)
		err = wire_task_unpack(buf_bytes(&reply), ret_task);
	buf_deinit(&packed);
	buf_deinit(&reply);
	if (err == ERR_DEADLINE && hang_up) {
		tally_hangup(p->swarm->tally);
		TRY(connect_anew(p));
		ret_task->kind = WIRE_TASK_WAIT;
		ret_task->wait_ms = 0;
		return ERR_OK;
	}
	return err;
}

static void finish_job(struct plant *p, const struct wire_task *task)
{
	p->finished_job = task->job;
	p->jobs++;
	tally_job_end(p->swarm->tally);
}

static enum err step(struct plant *p)
{
	struct wire_task task = {0};
	enum err err = next_task(p, &task);
	if (err != ERR_OK)
		err = recover(p, err);
	else if (task.kind == WIRE_TASK_TRAIN)
		err = take_round(p, &task);
	else if (task.kind == WIRE_TASK_FINISHED)
		finish_job(p, &task);
	else if (task.wait_ms > 0)
		err = nap(p, task.wait_ms);
	wire_task_free(&task);
	return err;
}

static enum err live(struct plant *p)
{
	const struct swarm_options *o = p->swarm->options;
	TRY(connect_anew(p));
	TRY(say_hello(p));
	tally_connected(p->swarm->tally);
	while (!atomic_load(&p->swarm->stop) && (o->jobs == 0 || p->jobs < (uint64_t)o->jobs))
		TRY(step(p));
	return ERR_OK;
}

static void *plant_main(void *arg)
{
	struct plant *p = arg;
	p->err = live(p);
	if (p->err == ERR_CANCELLED && atomic_load(&p->swarm->stop))
		p->err = ERR_OK;
	snprintf(p->text, sizeof p->text, "%s", err_text());
	disconnect(p);
	atomic_fetch_sub(&p->swarm->running, 1);
	return NULL;
}

enum err plant_start(struct swarm *swarm, size_t i, struct plant **ret_plant)
{
	char dir[PATH_SIZE];
	pthread_attr_t attr;
	const struct swarm_options *o = swarm->options;
	struct plant *p = mem_new(sizeof *p);
	p->swarm = swarm;
	p->backoff = (struct backoff){.first_ms = BACKOFF_FIRST_MS < o->retry_ms ? BACKOFF_FIRST_MS : o->retry_ms,
				      .max_ms = o->retry_ms};
	enrol_name(o->prefix, i, p->name);
	rng_stream(&p->rng, (uint64_t)clock_wall_ms(), p->name, i);
	enum err err = credential_load(enrol_dir(o->state, o->prefix, i, dir), clock_wall_ms(), &p->cred);
	if (err != ERR_OK) {
		free(p);
		return err;
	}
	pthread_mutex_init(&p->lock, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	atomic_fetch_add(&swarm->running, 1);
	int failed = pthread_create(&p->thread, &attr, plant_main, p);
	pthread_attr_destroy(&attr);
	if (failed != 0) {
		atomic_fetch_sub(&swarm->running, 1);
		pthread_mutex_destroy(&p->lock);
		credential_free(&p->cred);
		free(p);
		errno = failed;
		return err_errno("cannot start the thread of plant %zu", i + 1);
	}
	*ret_plant = p;
	return ERR_OK;
}

void plant_cancel(struct plant *p)
{
	pthread_mutex_lock(&p->lock);
	if (p->client != NULL)
		rpc_client_cancel(p->client);
	pthread_mutex_unlock(&p->lock);
}

enum err plant_join(struct plant *p)
{
	pthread_join(p->thread, NULL);
	enum err err = p->err;
	if (err != ERR_OK)
		err_set(err, "%s: %s", p->name, p->text);
	pthread_mutex_destroy(&p->lock);
	credential_free(&p->cred);
	content_free(&p->content);
	free(p);
	return err;
}
