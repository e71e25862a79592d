/*
 * Waiting calls: many at once, answers and hang-ups racing, a plant that calls again, and a shutdown with calls
 * waiting.
 */
#include "rpc/fixture.h"

#include <pthread.h>
#include <stdatomic.h>

enum { BOOK_MAX = 512 };

/* An owner of tickets as the coordinator is one: a book under a lock. */
struct book {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct rpc_ticket *v[BOOK_MAX];
	size_t n;
	atomic_int taken, gone, not_gone, answered;
	atomic_bool at_once; /* answer in the handler */
};

static void book_init(struct book *b)
{
	*b = (struct book){0};
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->changed, NULL);
}

static void book_deinit(struct book *b)
{
	assert_int_equal(b->n, 0);
	pthread_mutex_destroy(&b->lock);
	pthread_cond_destroy(&b->changed);
}

static void take_ticket(void *ctx, const struct peer *peer, struct bytes request, struct rpc_ticket *t)
{
	struct book *b = ctx;
	assert_ptr_equal(peer, rpc_ticket_peer(t));
	assert_true(request.n < 100);
	atomic_fetch_add(&b->taken, 1);
	if (b->at_once) {
		rpc_ticket_answer(t, ERR_OK, request);
		atomic_fetch_add(&b->answered, 1);
		return;
	}
	pthread_mutex_lock(&b->lock);
	assert_true(b->n < BOOK_MAX);
	b->v[b->n++] = t;
	pthread_cond_broadcast(&b->changed);
	pthread_mutex_unlock(&b->lock);
}

static bool ticket_gone(void *ctx, struct rpc_ticket *t)
{
	struct book *b = ctx;
	bool mine = false;
	pthread_mutex_lock(&b->lock);
	for (size_t i = 0; i < b->n && !mine; i++) {
		mine = b->v[i] == t;
		if (mine)
			b->v[i] = b->v[--b->n];
	}
	atomic_fetch_add(mine ? &b->gone : &b->not_gone, 1);
	pthread_cond_broadcast(&b->changed);
	pthread_mutex_unlock(&b->lock);
	return mine;
}

/* Take a ticket out of the book and answer it outside the lock; false when the book is empty. */
static bool answer_one(struct book *b, enum err code, const char *text)
{
	pthread_mutex_lock(&b->lock);
	struct rpc_ticket *t = b->n > 0 ? b->v[--b->n] : NULL;
	pthread_mutex_unlock(&b->lock);
	if (t == NULL)
		return false;
	if (code != ERR_OK)
		err_set(code, "%s", text);
	rpc_ticket_answer(t, code, bytes_str(text));
	atomic_fetch_add(&b->answered, 1);
	return true;
}

static void wait_for(struct book *b, size_t n)
{
	pthread_mutex_lock(&b->lock);
	while (b->n != n)
		pthread_cond_wait(&b->changed, &b->lock);
	pthread_mutex_unlock(&b->lock);
}

static const struct rpc_handler handlers[METHOD_COUNT] = {
	[METHOD_NEXT_TASK] = {.parked = take_ticket},
	[METHOD_WATCH] = {.parked = take_ticket},
};

static struct rpc_server *server(struct book *b, size_t parked_max)
{
	struct rpc_server *s;
	struct rpc_server_config config = fixture_server_config(handlers, b);
	config.gone = ticket_gone;
	config.parked_max = parked_max;
	config.workers = 1;
	assert_ok(rpc_server_start(&config, &s));
	return s;
}

/* A client with a thread of its own that makes one waiting call. */
struct waiter {
	pthread_t thread;
	struct rpc_client *c;
	enum method_id method;
	int64_t deadline_ms;
	enum err result;
	char text[100];
	struct fixture_id id;
};

static void *waiter_main(void *arg)
{
	struct waiter *w = arg;
	struct buf reply = {0};
	w->result = rpc_client_call(w->c, w->method, bytes_str("hello"), w->deadline_ms, &reply);
	snprintf(w->text, sizeof w->text, "%s", w->result == ERR_OK ? buf_str(&reply) : err_text());
	buf_deinit(&reply);
	return NULL;
}

static void waiter_start(struct waiter *w, const struct rpc_server *s, const struct fixture_id *id,
			 enum method_id method)
{
	w->method = method;
	w->c = fixture_client(s, id);
	w->result = ERR_INTERNAL;
	assert_int_equal(pthread_create(&w->thread, NULL, waiter_main, w), 0);
}

static void waiter_join(struct waiter *w)
{
	pthread_join(w->thread, NULL);
	rpc_client_free(w->c);
}

static void test_answers(void **state)
{
	(void)state;
	struct book b;
	struct waiter one = {0}, two = {0};
	book_init(&b);
	struct rpc_server *s = server(&b, 10);
	waiter_start(&one, s, &fixture.plant, METHOD_NEXT_TASK);
	waiter_start(&two, s, &fixture.plant2, METHOD_NEXT_TASK);
	wait_for(&b, 2);
	struct rpc_server_stats stats;
	rpc_server_get_stats(s, &stats);
	assert_int_equal(stats.parked, 2);
	assert_true(answer_one(&b, ERR_OK, "a task"));
	assert_true(answer_one(&b, ERR_STALE, "too late"));
	waiter_join(&one);
	waiter_join(&two);
	const struct waiter *ok = one.result == ERR_OK ? &one : &two, *bad = one.result == ERR_OK ? &two : &one;
	assert_int_equal(ok->result, ERR_OK);
	assert_string_equal(ok->text, "a task");
	assert_int_equal(bad->result, ERR_STALE);
	assert_string_equal(bad->text, "too late");

	b.at_once = true;
	waiter_start(&one, s, &fixture.plant, METHOD_NEXT_TASK);
	waiter_join(&one);
	assert_int_equal(one.result, ERR_OK);
	assert_string_equal(one.text, "hello");
	rpc_server_stop(s, 1000);
	assert_int_equal(atomic_load(&b.gone), 0);
	book_deinit(&b);
}

enum { MANY = 200 };

static void test_many(void **state)
{
	(void)state;
	struct book b;
	static struct waiter w[MANY];
	book_init(&b);
	struct rpc_server *s = server(&b, MANY);
	for (size_t i = 0; i < MANY; i++) {
		char name[20];
		snprintf(name, sizeof name, "plant-%zu", i);
		fixture_id_make(&w[i].id, &fixture.ca, ROLE_PLANT, name, NULL);
		waiter_start(&w[i], s, &w[i].id, METHOD_NEXT_TASK);
	}
	wait_for(&b, MANY);
	struct rpc_server_stats stats;
	rpc_server_get_stats(s, &stats);
	assert_int_equal(stats.parked, MANY);

	/* One more than allowed is refused with a reason, the others do not notice. */
	struct waiter more = {0};
	waiter_start(&more, s, &fixture.plant, METHOD_NEXT_TASK);
	waiter_join(&more);
	assert_int_equal(more.result, ERR_UNAVAILABLE);

	while (answer_one(&b, ERR_OK, "go"))
		continue;
	for (size_t i = 0; i < MANY; i++) {
		waiter_join(&w[i]);
		assert_int_equal(w[i].result, ERR_OK);
		assert_string_equal(w[i].text, "go");
		fixture_id_free(&w[i].id);
	}
	rpc_server_stop(s, 1000);
	assert_int_equal(atomic_load(&b.gone), 0);
	book_deinit(&b);
}

/* Answers all that wait with the same reply, and lets go of it at once. */
static void answer_all(struct book *b, size_t size)
{
	struct buf content;
	buf_init(&content, size + 1);
	for (size_t i = 0; i < size; i++)
		assert_ok(buf_append(&content, "abcdefghijklmnopqrstuvwxyz" + i % 26, 1));
	struct rpc_reply *reply = rpc_reply_new(&content);
	assert_null(content.p);
	assert_int_equal(rpc_reply_bytes(reply).n, size);
	pthread_mutex_lock(&b->lock);
	while (b->n > 0)
		rpc_ticket_answer_shared(b->v[--b->n], reply);
	pthread_mutex_unlock(&b->lock);
	rpc_reply_release(reply);
}

static void test_shared_reply(void **state)
{
	(void)state;
	enum { SHARERS = 20 };
	struct book b;
	struct waiter w[SHARERS];
	const size_t max = methods[METHOD_NEXT_TASK].reply_max, sizes[] = {0, 1, 200000, max, max + 1};
	book_init(&b);
	struct rpc_server *s = server(&b, 100);
	for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
		uint64_t sent, received;
		struct rpc_server_stats before, after;
		rpc_server_get_stats(s, &before);
		for (size_t i = 0; i < SHARERS; i++) {
			char name[20];
			snprintf(name, sizeof name, "plant-%zu", i);
			w[i] = (struct waiter){0};
			fixture_id_make(&w[i].id, &fixture.ca, ROLE_PLANT, name, NULL);
			waiter_start(&w[i], s, &w[i].id, METHOD_NEXT_TASK);
		}
		wait_for(&b, SHARERS);
		answer_all(&b, sizes[k]);
		for (size_t i = 0; i < SHARERS; i++) {
			pthread_join(w[i].thread, NULL);
			rpc_client_get_bytes(w[i].c, &sent, &received);
			rpc_client_free(w[i].c);
			fixture_id_free(&w[i].id);
			assert_int_equal(w[i].result, sizes[k] > max ? ERR_INTERNAL : ERR_OK);
			assert_int_equal(received, sizes[k] > max ? 0 : sizes[k]);
			if (sizes[k] == 200000)
				assert_memory_equal(w[i].text, "abcdefghijklmnopqrstuvwxyzabc", 29);
		}
		rpc_server_get_stats(s, &after);
		assert_int_equal(after.bytes_out - before.bytes_out, sizes[k] > max ? 0 : SHARERS * sizes[k]);
	}
	/* One that has hung up meanwhile gets nothing, and nothing is lost. */
	waiter_start(&w[0], s, &fixture.plant, METHOD_NEXT_TASK);
	wait_for(&b, 1);
	rpc_client_cancel(w[0].c);
	wait_for(&b, 0);
	answer_all(&b, 1000);
	waiter_join(&w[0]);
	rpc_server_stop(s, 1000);
	book_deinit(&b);
}

static void test_hang_up(void **state)
{
	(void)state;
	struct book b;
	struct waiter w = {0};
	book_init(&b);
	struct rpc_server *s = server(&b, 10);
	waiter_start(&w, s, &fixture.plant, METHOD_NEXT_TASK);
	wait_for(&b, 1);
	rpc_client_cancel(w.c);
	wait_for(&b, 0);
	waiter_join(&w);
	assert_int_equal(w.result, ERR_CANCELLED);
	assert_int_equal(atomic_load(&b.gone), 1);

	/* A deadline that passes; long enough, in the end, for the call to have reached the server. */
	for (int64_t deadline_ms = 300; atomic_load(&b.taken) == 1; deadline_ms *= 2) {
		w = (struct waiter){.deadline_ms = deadline_ms};
		waiter_start(&w, s, &fixture.plant, METHOD_NEXT_TASK);
		waiter_join(&w);
		assert_int_equal(w.result, ERR_DEADLINE);
	}
	rpc_server_stop(s, 1000);
	assert_int_equal(atomic_load(&b.gone), atomic_load(&b.taken));
	book_deinit(&b);
}

/* The plant's old connection may be dead without the server knowing. */
static void test_called_again(void **state)
{
	(void)state;
	struct book b;
	struct waiter old = {0}, new = {0}, watch[17] = {0};
	book_init(&b);
	struct rpc_server *s = server(&b, 100);
	waiter_start(&old, s, &fixture.plant, METHOD_NEXT_TASK);
	wait_for(&b, 1);
	waiter_start(&new, s, &fixture.plant, METHOD_NEXT_TASK);
	waiter_join(&old);
	assert_int_equal(old.result, ERR_UNAVAILABLE);
	wait_for(&b, 1);
	assert_true(answer_one(&b, ERR_OK, "to the new one"));
	waiter_join(&new);
	assert_int_equal(new.result, ERR_OK);
	assert_string_equal(new.text, "to the new one");
	assert_int_equal(atomic_load(&b.gone), 1);

	/* An operator may watch in several windows, up to a number. */
	for (size_t i = 0; i < 16; i++) {
		waiter_start(&watch[i], s, &fixture.operator, METHOD_WATCH);
		wait_for(&b, i + 1);
	}
	waiter_start(&watch[16], s, &fixture.operator, METHOD_WATCH);
	waiter_join(&watch[16]);
	assert_int_equal(watch[16].result, ERR_LIMIT);
	while (answer_one(&b, ERR_OK, "news"))
		continue;
	for (size_t i = 0; i < 16; i++) {
		waiter_join(&watch[i]);
		assert_int_equal(watch[i].result, ERR_OK);
	}
	rpc_server_stop(s, 1000);
	book_deinit(&b);
}

static void *answering_thread(void *arg)
{
	struct book *b = arg;
	while (atomic_load(&b->answered) >= 0) {
		pthread_mutex_lock(&b->lock);
		if (b->n == 0) {
			struct timespec until;
			clock_gettime(CLOCK_REALTIME, &until);
			until.tv_nsec += 2000000;
			until.tv_sec += until.tv_nsec / 1000000000;
			until.tv_nsec %= 1000000000;
			pthread_cond_timedwait(&b->changed, &b->lock, &until);
		}
		pthread_mutex_unlock(&b->lock);
		answer_one(b, ERR_OK, "race");
		if (b->at_once)
			break;
	}
	return NULL;
}

struct racer {
	pthread_t thread;
	const struct rpc_server *server;
	const struct fixture_id *id;
	uint64_t seed;
	unsigned results[ERR_COUNT];
};

enum { RACES = 150, RACERS = 3 };

/* Deadlines of a few milliseconds, cancels and hang-ups against answers that come at any moment. */
static void *racer_main(void *arg)
{
	struct racer *r = arg;
	struct rpc_client *c = NULL;
	for (unsigned i = 0; i < RACES; i++) {
		struct buf reply = {0};
		r->seed = r->seed * 6364136223846793005u + 1442695040888963407u;
		if (c == NULL)
			c = fixture_client(r->server, r->id);
		enum err e = rpc_client_call(c, METHOD_NEXT_TASK, bytes_str("r"), 1 + (int64_t)(r->seed >> 60), &reply);
		r->results[e]++;
		buf_deinit(&reply);
		/* A quarter of the time the connection goes as well. */
		if (i % 4 == 3) {
			rpc_client_free(c);
			c = NULL;
		}
	}
	rpc_client_free(c);
	return NULL;
}

static void test_races(void **state)
{
	(void)state;
	struct book b;
	struct racer r[RACERS] = {{0}};
	const struct fixture_id *ids[RACERS] = {&fixture.plant, &fixture.plant2, &fixture.plant};
	pthread_t answering;
	book_init(&b);
	struct rpc_server *s = server(&b, 100);
	assert_int_equal(pthread_create(&answering, NULL, answering_thread, &b), 0);
	for (size_t i = 0; i < RACERS; i++) {
		r[i].server = s;
		r[i].id = ids[i];
		r[i].seed = i;
		assert_int_equal(pthread_create(&r[i].thread, NULL, racer_main, &r[i]), 0);
	}
	unsigned total = 0;
	for (size_t i = 0; i < RACERS; i++) {
		pthread_join(r[i].thread, NULL);
		const unsigned *n = r[i].results;
		total += n[ERR_OK] + n[ERR_DEADLINE] + n[ERR_UNAVAILABLE];
	}
	assert_int_equal(total, RACERS * RACES);
	/* Every ticket that was taken is answered or gone, never both: the book is empty and the sums agree. */
	wait_for(&b, 0);
	pthread_mutex_lock(&b.lock);
	b.at_once = true;
	pthread_cond_broadcast(&b.changed);
	pthread_mutex_unlock(&b.lock);
	pthread_join(answering, NULL);
	rpc_server_stop(s, 5000);
	assert_int_equal(atomic_load(&b.taken), atomic_load(&b.gone) + atomic_load(&b.answered));
	book_deinit(&b);
}

/* Nobody answers: after the grace the calls are cancelled and their owner told. */
static void test_shutdown_with_waiting(void **state)
{
	(void)state;
	for (int answer_first = 0; answer_first < 2; answer_first++) {
		struct book b;
		static struct waiter w[40];
		book_init(&b);
		struct rpc_server *s = server(&b, 100);
		for (size_t i = 0; i < 40; i++) {
			char name[20];
			snprintf(name, sizeof name, "plant-%zu", i);
			fixture_id_make(&w[i].id, &fixture.ca, ROLE_PLANT, name, NULL);
			waiter_start(&w[i], s, &w[i].id, METHOD_NEXT_TASK);
		}
		wait_for(&b, 40);
		while (answer_first && answer_one(&b, ERR_UNAVAILABLE, "the server stops"))
			continue;
		rpc_server_stop(s, answer_first ? 5000 : 50);
		for (size_t i = 0; i < 40; i++) {
			waiter_join(&w[i]);
			assert_int_equal(w[i].result, ERR_UNAVAILABLE);
			fixture_id_free(&w[i].id);
		}
		assert_int_equal(atomic_load(&b.gone), answer_first ? 0 : 40);
		book_deinit(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_shared_reply),
		cmocka_unit_test(test_hang_up),
		cmocka_unit_test(test_called_again),
		cmocka_unit_test(test_races),
		cmocka_unit_test(test_shutdown_with_waiting),
	};
	return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
