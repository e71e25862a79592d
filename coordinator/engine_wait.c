/*
 * Calls that wait. A call comes in on a thread that must not block, so what memory can answer is answered at once, and everything else goes
 * to the lobby; what needs the database (has a job of this plant ended?) is looked up by the engine's thread.
 *
 * Most plants that come have missed nothing: they know of an end as late as the last one that there was, and are not looked up.
 *
 * Nothing is missed in between: jobs end on the engine's thread only, the same that asks the database, and rounds open under the lock.
 *
 * Ends are told in the order of the jobs: a plant only says which end it saw last, so the end of job 2 is kept back while the plant is
 * still in the running job 1. A job that was resumed ends once more: ends are counted, and the plant says how many of that job it has seen.
 * An older plant does not; it hears of a further end when it waits at that moment, or has been asked to train in between.
 */
#include "coordinator/engine_parts.h"

#include "base/log.h"
#include "coordinator/trouble.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHECK_MAX = 64 };

/* Does the plant want none of this round? It has found that it cannot take part in it. */
static bool is_skipped(const struct waiter *w, const struct run *r)
{
	return w->job == r->id && (w->round == 0 || w->round == r->round.number);
}

/* May this plant train in this run now? */
static bool has_task(const struct waiter *w, const struct run *r, int64_t now_ms)
{
	const struct seat *s = run_seat(r, w->who);
	bool open = r->round.phase == ROUND_OPEN && !r->closing && !r->stop_asked && now_ms < r->round.deadline_ms;
	return open && s != NULL && s->invited && !s->accepted && !is_skipped(w, r);
}

/* Of several running jobs the oldest. */
static struct run *find_task(const struct engine *e, const struct waiter *w, int64_t now_ms)
{
	for (size_t i = 0; i < e->n_runs; i++) {
		if (has_task(w, e->runs[i], now_ms))
			return e->runs[i];
	}
	return NULL;
}

static void send_task(struct run *r, struct waiter *w, int64_t now_ms, struct notices *out)
{
	/* The others are counted when they fetch it: engine_sent(). */
	r->bytes_down += r->base_copy != NULL ? r->base_size : 0;
	notice_train(out, w, r, now_ms);
}

static struct waiter *waiter_new(const struct engine *e, enum waiter_kind kind, const char *who, answer_fn answer,
				 void *call)
{
	struct waiter *w = mem_new(sizeof *w);
	w->kind = kind;
	w->answer = answer;
	w->call = call;
	w->until_ms = engine_monotonic_ms(e) + e->config.hold_ms;
	snprintf(w->who, sizeof w->who, "%s", who);
	return w;
}

/* The thread knows of the first in the lobby, who is answered first; behind it nobody needs it before that, unless to be looked up. */
static void enter_lobby(struct engine *e, struct waiter *w)
{
	if (w->unchecked || e->lobby.first == NULL)
		engine_wake(e);
	lobby_add(&e->lobby, w);
}

void engine_task(struct engine *e, const char *plant, const struct wire_task_request *request, answer_fn answer,
		 void *call)
{
	struct notices notices = {0};
	int64_t now = engine_wall_ms(e);
	struct waiter *w = waiter_new(e, WAITER_TASK, plant, answer, call);
	w->seen = request->finished_job;
	w->ends = request->finished_ends != 0 ? request->finished_ends : UINT32_MAX;
	w->job = request->skip_job;
	w->round = request->skip_round;
	registry_saw(e->config.registry, ROLE_PLANT, plant, request->software, now);
	pthread_mutex_lock(&e->lock);
	struct waiter *older = lobby_task_of(&e->lobby, plant);
	if (older != NULL) {
		lobby_remove(&e->lobby, older);
		notice_wait(&notices, older);
	}
	struct run *r = find_task(e, w, now);
	if (e->draining) {
		notice_refuse(&notices, w, ERR_UNAVAILABLE, ENGINE_STOPPING);
	} else if (r != NULL) {
		send_task(r, w, now, &notices);
	} else {
		w->unchecked = w->seen < e->last_ended || (w->seen == e->last_ended && w->ends < e->last_ends);
		enter_lobby(e, w);
	}
	pthread_mutex_unlock(&e->lock);
	notices_send(&notices, NULL);
}

void engine_watch(struct engine *e, const char *who, const struct wire_watch_request *request, answer_fn answer,
		  void *call)
{
	struct notices notices = {0};
	struct waiter *w = waiter_new(e, WAITER_WATCH, who, answer, call);
	w->seen = request->seen;
	w->job = request->job;
	pthread_mutex_lock(&e->lock);
	const struct run *r = engine_find(e, request->job);
	if (e->draining) {
		notice_refuse(&notices, w, ERR_UNAVAILABLE, ENGINE_STOPPING);
	} else if (r != NULL && r->version > request->seen) {
		notice_moved(&notices, w, r);
	} else {
		w->unchecked = r == NULL;
		enter_lobby(e, w);
	}
	pthread_mutex_unlock(&e->lock);
	notices_send(&notices, NULL);
}

bool engine_forget(struct engine *e, const char *who, const void *call)
{
	pthread_mutex_lock(&e->lock);
	struct waiter *w = lobby_call(&e->lobby, who, call);
	if (w != NULL)
		lobby_remove(&e->lobby, w);
	pthread_mutex_unlock(&e->lock);
	free(w);
	return w != NULL;
}

/* ---- events ---- */

void engine_tell_watchers(struct engine *e, const struct run *r, struct notices *out)
{
	for (struct waiter *w = e->lobby.first, *next; w != NULL; w = next) {
		next = w->next;
		if (w->kind != WAITER_WATCH || w->job != r->id || r->version <= w->seen)
			continue;
		lobby_remove(&e->lobby, w);
		notice_moved(out, w, r);
	}
}

void engine_tell_open(struct engine *e, struct run *r, struct notices *out)
{
	int64_t now = engine_wall_ms(e);
	for (struct waiter *w = e->lobby.first, *next; w != NULL; w = next) {
		next = w->next;
		if (w->kind != WAITER_TASK || !has_task(w, r, now))
			continue;
		lobby_remove(&e->lobby, w);
		send_task(r, w, now, out);
	}
	engine_tell_watchers(e, r, out);
}

/* Is the plant in an older job that runs, whose end it has not seen? Not the end that is to come of one that was resumed, either. */
static bool is_kept_back(const struct engine *e, const char *plant, uint64_t seen, uint64_t job)
{
	for (size_t i = 0; i < e->n_runs && e->runs[i]->id < job; i++) {
		if (e->runs[i]->id >= seen && run_seat(e->runs[i], plant) != NULL)
			return true;
	}
	return false;
}

/* A plant that the database has not been asked about may have missed the end of an older job: the question that follows answers it. */
static bool hears_of_end(const struct engine *e, const struct waiter *w, const struct run *r)
{
	return !w->unchecked && w->seen <= r->id && run_seat(r, w->who) != NULL &&
	       !is_kept_back(e, w->who, w->seen, r->id);
}

void engine_tell_end(struct engine *e, const struct run *r, struct notices *out)
{
	for (struct waiter *w = e->lobby.first, *next; w != NULL; w = next) {
		next = w->next;
		bool mine = w->kind == WAITER_WATCH ? w->job == r->id : hears_of_end(e, w, r);
		if (!mine)
			continue;
		lobby_remove(&e->lobby, w);
		if (w->kind == WAITER_WATCH)
			notice_ended(out, w, r->id);
		else
			notice_finished(out, w, r->id);
	}
}

void engine_expire(struct engine *e, int64_t monotonic_ms, struct notices *out)
{
	while (e->lobby.first != NULL && e->lobby.first->until_ms <= monotonic_ms) {
		struct waiter *w = e->lobby.first;
		const struct run *r = w->kind == WAITER_WATCH ? engine_find(e, w->job) : NULL;
		lobby_remove(&e->lobby, w);
		if (w->kind == WAITER_TASK)
			notice_wait(out, w);
		else if (r != NULL)
			notice_moved(out, w, r);
		else
			notice_ended(out, w, w->job);
	}
}

/* ---- those that have just come ---- */

struct question {
	char plant[IDENTITY_PART_SIZE];
	void *call;
	uint64_t seen;
	uint32_t ends;
};

/* Watchers of jobs that do not run are answered; of the plants some are picked to ask the database about. */
static size_t pick(struct engine *e, struct question *out, struct notices *notices)
{
	size_t n = 0;
	for (struct waiter *w = e->lobby.first, *next; w != NULL && n < CHECK_MAX; w = next) {
		next = w->next;
		if (!w->unchecked)
			continue;
		lobby_checked(&e->lobby, w);
		if (w->kind == WAITER_WATCH) {
			lobby_remove(&e->lobby, w);
			notice_ended(notices, w, w->job);
		} else {
			struct question *q = &out[n++];
			memcpy(q->plant, w->who, sizeof q->plant);
			q->call = w->call;
			q->seen = w->seen;
			q->ends = w->ends;
		}
	}
	return n;
}

/* `job` has ended; 0: nobody knows, and waiting on would miss an end. */
static void tell_answer(struct engine *e, const struct question *q, uint64_t job, struct notices *notices)
{
	pthread_mutex_lock(&e->lock);
	struct waiter *w = lobby_call(&e->lobby, q->plant, q->call);
	/* It may have gone, and another call may have its address: then it has its own question. */
	if (w != NULL && !w->unchecked && w->kind == WAITER_TASK && w->seen == q->seen && w->ends == q->ends &&
	    strcmp(w->who, q->plant) == 0) {
		lobby_remove(&e->lobby, w);
		if (job != 0)
			notice_finished(notices, w, job);
		else
			notice_refuse(notices, w, ERR_UNAVAILABLE, TROUBLE_READ);
	}
	pthread_mutex_unlock(&e->lock);
}

bool engine_check_lobby(struct engine *e)
{
	struct question questions[CHECK_MAX];
	struct notices notices = {0};
	pthread_mutex_lock(&e->lock);
	size_t n = e->lobby.n_unchecked > 0 ? pick(e, questions, &notices) : 0;
	pthread_mutex_unlock(&e->lock);
	for (size_t i = 0; i < n; i++) {
		uint64_t job;
		enum wire_job_state state;
		const struct question *q = &questions[i];
		enum err err = db_job_after(e->config.db, q->plant, q->seen, q->ends, &job, &state);
		if (err == ERR_OK && state != WIRE_JOB_RUNNING) {
			tell_answer(e, q, job, &notices);
		} else if (err != ERR_OK && err != ERR_NOT_FOUND) {
			log_error("engine", "looking for a job of %s that has ended: %s", q->plant, err_text());
			tell_answer(e, q, 0, &notices);
		}
	}
	notices_send(&notices, e->config.db);
	pthread_mutex_lock(&e->lock);
	bool more = e->lobby.n_unchecked > 0;
	pthread_mutex_unlock(&e->lock);
	return more;
}
