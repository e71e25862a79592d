#include "update/fixture.h"

#include "coordinator/round.h"

static const int64_t opened = 1000, deadline = 5000;

static struct round round_of(enum round_phase phase, uint32_t accepted)
{
	return (struct round){.number = 1,
			      .phase = phase,
			      .cohort = 4,
			      .goal = 4,
			      .quorum = 2,
			      .accepted = accepted,
			      .opened_ms = opened,
			      .deadline_ms = deadline,
			      .grace_ms = 500};
}

static bool same(const struct round *a, const struct round *b)
{
	return a->number == b->number && a->phase == b->phase && a->cohort == b->cohort && a->quorum == b->quorum &&
	       a->goal == b->goal && a->accepted == b->accepted && a->opened_ms == b->opened_ms &&
	       a->deadline_ms == b->deadline_ms;
}

enum { NO = -1 };

struct answer {
	int next, action; /* next NO: ERR_STATE */
};

/* Written out by hand, for 3 updates of 4 (quorum 2): before the deadline, and after it. */
static const struct answer before[ROUND_PHASE_COUNT][ROUND_EVENT_COUNT] = {
	/* ACCEPTED, TICK, SEALED, AGGREGATED, COMMITTED, ABANDONED, STOP */
	[ROUND_OPEN] = {{ROUND_OPEN, ROUND_SEAL},
			{ROUND_OPEN, ROUND_NOTHING},
			{ROUND_SEALED, ROUND_AGGREGATE},
			{NO, 0},
			{NO, 0},
			{ROUND_ABANDONED, ROUND_NEXT},
			{ROUND_OPEN, ROUND_ABANDON}},
	[ROUND_SEALED] = {{NO, 0},
			  {ROUND_SEALED, ROUND_NOTHING},
			  {NO, 0},
			  {ROUND_AGGREGATED, ROUND_COMMIT},
			  {NO, 0},
			  {ROUND_ABANDONED, ROUND_NEXT},
			  {ROUND_SEALED, ROUND_NOTHING}},
	[ROUND_AGGREGATED] = {{NO, 0},
			      {ROUND_AGGREGATED, ROUND_NOTHING},
			      {NO, 0},
			      {NO, 0},
			      {ROUND_COMMITTED, ROUND_NEXT},
			      {NO, 0},
			      {ROUND_AGGREGATED, ROUND_NOTHING}},
	[ROUND_COMMITTED] = {{NO, 0},
			     {ROUND_COMMITTED, ROUND_NOTHING},
			     {NO, 0},
			     {NO, 0},
			     {NO, 0},
			     {NO, 0},
			     {ROUND_COMMITTED, ROUND_NOTHING}},
	[ROUND_ABANDONED] = {{NO, 0},
			     {ROUND_ABANDONED, ROUND_NOTHING},
			     {NO, 0},
			     {NO, 0},
			     {NO, 0},
			     {NO, 0},
			     {ROUND_ABANDONED, ROUND_NOTHING}},
};

static void assert_answer(struct round r, enum round_event event, int64_t now, struct answer want)
{
	struct round was = r;
	enum round_action action = ROUND_ACTION_COUNT;
	enum err e = round_step(&r, event, now, &action);
	if (want.next == NO) {
		assert_int_equal(e, ERR_STATE);
		assert_true(same(&r, &was));
		assert_int_equal(action, ROUND_ACTION_COUNT);
		return;
	}
	assert_ok(e);
	assert_int_equal(r.phase, want.next);
	assert_int_equal(action, want.action);
	assert_int_equal(r.accepted, was.accepted + (event == ROUND_EVENT_ACCEPTED));
}

static void every_event_in_every_phase(void **state)
{
	(void)state;
	for (int phase = 0; phase < ROUND_PHASE_COUNT; phase++) {
		for (int event = 0; event < ROUND_EVENT_COUNT; event++) {
			struct round r = round_of((enum round_phase)phase, 3);
			assert_answer(r, (enum round_event)event, deadline - 1, before[phase][event]);
			/* After the deadline only the answer to a tick is another one. */
			struct answer late = before[phase][event];
			if (phase == ROUND_OPEN && event == ROUND_EVENT_TICK)
				late.action = ROUND_SEAL;
			assert_answer(r, (enum round_event)event, deadline, late);
		}
	}
}

static void an_open_round_is_judged_by_count_and_time(void **state)
{
	(void)state;
	static const struct {
		uint32_t accepted;
		int64_t now;
		enum round_action action;
	} cases[] = {
		{0, opened, ROUND_NOTHING},    {3, deadline - 1, ROUND_NOTHING}, {4, opened, ROUND_SEAL},
		{4, deadline + 9, ROUND_SEAL}, {0, deadline, ROUND_ABANDON},     {1, deadline, ROUND_ABANDON},
		{2, deadline, ROUND_SEAL},     {3, INT64_MAX, ROUND_SEAL},       {1, INT64_MAX, ROUND_ABANDON},
		{0, INT64_MIN, ROUND_NOTHING}, /* a clock that went back decides nothing */
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct round r = round_of(ROUND_OPEN, cases[i].accepted);
		enum round_action action;
		assert_ok(round_step(&r, ROUND_EVENT_TICK, cases[i].now, &action));
		assert_int_equal(action, cases[i].action);
		assert_int_equal(round_resume(&r, cases[i].now), cases[i].action);
		assert_int_equal(r.phase, ROUND_OPEN);
		/* The same when the last update comes at that time. */
		if (cases[i].accepted > 0) {
			r = round_of(ROUND_OPEN, cases[i].accepted - 1);
			assert_ok(round_step(&r, ROUND_EVENT_ACCEPTED, cases[i].now, &action));
			assert_int_equal(action, cases[i].action);
		}
	}
}

static void the_goal_closes_early(void **state)
{
	(void)state;
	struct round r = round_of(ROUND_OPEN, 2);
	enum round_action action;
	r.goal = 3;
	assert_ok(round_step(&r, ROUND_EVENT_TICK, opened, &action));
	assert_int_equal(action, ROUND_NOTHING);
	assert_ok(round_accepts(&r, opened));
	assert_ok(round_step(&r, ROUND_EVENT_ACCEPTED, opened, &action));
	assert_int_equal(action, ROUND_SEAL);
	assert_int_equal(round_resume(&r, opened), ROUND_SEAL);
	assert_fails(round_accepts(&r, opened), ERR_STALE, "wants");
	assert_fails(round_finishes(&r, opened), ERR_STALE, "wants");
	/* One that was being recorded meanwhile counts all the same. */
	assert_ok(round_step(&r, ROUND_EVENT_ACCEPTED, opened, &action));
	assert_int_equal(r.accepted, 4);
	assert_int_equal(action, ROUND_SEAL);
	assert_ok(round_step(&r, ROUND_EVENT_SEALED, opened, &action));
}

static void what_flows_at_the_deadline_is_waited_for(void **state)
{
	(void)state;
	const struct {
		uint32_t accepted, flowing;
		int64_t now;
		enum round_action action;
	} cases[] = {
		{2, 1, deadline, ROUND_NOTHING},     {2, 1, deadline + 499, ROUND_NOTHING},
		{2, 1, deadline + 500, ROUND_SEAL},  {2, 0, deadline, ROUND_SEAL},
		{1, 1, deadline, ROUND_NOTHING},     {1, 1, deadline + 500, ROUND_ABANDON},
		{0, 2, deadline, ROUND_NOTHING},     {0, 1, deadline, ROUND_ABANDON}, /* no quorum could come of it */
		{1, 0, deadline + 1, ROUND_ABANDON}, {4, 2, deadline, ROUND_SEAL},
		{2, 1, INT64_MAX, ROUND_SEAL},       {0, UINT32_MAX, deadline, ROUND_NOTHING},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct round r = round_of(ROUND_OPEN, cases[i].accepted);
		enum round_action action;
		r.flowing = cases[i].flowing;
		assert_ok(round_step(&r, ROUND_EVENT_TICK, cases[i].now, &action));
		assert_int_equal(action, cases[i].action);
		r.grace_ms = 0;
		assert_ok(round_step(&r, ROUND_EVENT_TICK, deadline, &action));
		assert_int_equal(action, cases[i].accepted >= 2 ? ROUND_SEAL : ROUND_ABANDON);
	}
	struct round r = round_of(ROUND_OPEN, 2);
	assert_fails(round_accepts(&r, deadline), ERR_STALE, "deadline");
	assert_ok(round_finishes(&r, deadline + 499));
	assert_fails(round_finishes(&r, deadline + 500), ERR_STALE, "deadline");
}

static void a_lost_quorum_ends_the_round_at_once(void **state)
{
	(void)state;
	struct round r = round_of(ROUND_OPEN, 1);
	enum round_action action;
	r.lost = true;
	assert_ok(round_step(&r, ROUND_EVENT_TICK, opened, &action));
	assert_int_equal(action, ROUND_ABANDON);
	assert_int_equal(round_resume(&r, opened), ROUND_ABANDON);
	/* A quorum that is there is there. */
	r.accepted = 2;
	assert_int_equal(round_resume(&r, opened), ROUND_NOTHING);
	assert_int_equal(round_resume(&r, deadline), ROUND_SEAL);
}

static void a_full_round_takes_no_more(void **state)
{
	(void)state;
	struct round r = round_of(ROUND_OPEN, 4);
	enum round_action action;
	assert_fails(round_step(&r, ROUND_EVENT_ACCEPTED, opened, &action), ERR_STATE, "each of its 4 plants");
	assert_int_equal(r.accepted, 4);
	assert_fails(round_accepts(&r, opened), ERR_STALE, "all the updates that it wants");
}

static void a_seal_needs_the_quorum(void **state)
{
	(void)state;
	for (uint32_t accepted = 0; accepted <= 4; accepted++) {
		struct round r = round_of(ROUND_OPEN, accepted);
		enum round_action action;
		enum err e = round_step(&r, ROUND_EVENT_SEALED, deadline, &action);
		assert_int_equal(e, accepted >= 2 ? ERR_OK : ERR_STATE);
		assert_int_equal(r.phase, accepted >= 2 ? ROUND_SEALED : ROUND_OPEN);
	}
}

static void updates_are_accepted_until_the_deadline(void **state)
{
	(void)state;
	struct round r = round_of(ROUND_OPEN, 3);
	assert_ok(round_accepts(&r, opened));
	assert_ok(round_accepts(&r, deadline - 1));
	assert_fails(round_accepts(&r, deadline), ERR_STALE, "deadline");
	static const enum round_phase closed[] = {ROUND_SEALED, ROUND_AGGREGATED, ROUND_COMMITTED, ROUND_ABANDONED};
	for (size_t i = 0; i < sizeof closed / sizeof closed[0]; i++) {
		r = round_of(closed[i], 3);
		assert_fails(round_accepts(&r, opened), ERR_STALE, round_phase_name(closed[i]));
	}
}

/*
 * An engine in a few lines: does what an action says by writing to `disk` and feeding the event, and may die between
 * any two steps; what it finds then is the round on disk. *ret_done: how many things it did.
 */
struct engine {
	struct round memory, disk;
	unsigned seals, models, commits, abandons; /* that are durable */
	unsigned steps, dies_at;                   /* 0: never */
};

static bool dies(struct engine *e)
{
	return ++e->steps == e->dies_at;
}

/* false: it died. */
static bool act(struct engine *e, enum round_action action, int64_t now)
{
	while (action != ROUND_NOTHING && action != ROUND_NEXT) {
		struct round next = e->memory;
		static const enum round_event events[] = {[ROUND_SEAL] = ROUND_EVENT_SEALED,
							  [ROUND_AGGREGATE] = ROUND_EVENT_AGGREGATED,
							  [ROUND_COMMIT] = ROUND_EVENT_COMMITTED,
							  [ROUND_ABANDON] = ROUND_EVENT_ABANDONED};
		if (dies(e))
			return false; /* before anything is durable */
		assert_ok(round_step(&next, events[action], now, &action));
		/* AGGREGATED is a phase of memory: its model is in the store. */
		if (next.phase != ROUND_AGGREGATED)
			e->disk = next;
		e->seals += next.phase == ROUND_SEALED;
		e->models += next.phase == ROUND_AGGREGATED;
		e->commits += next.phase == ROUND_COMMITTED;
		e->abandons += next.phase == ROUND_ABANDONED;
		if (dies(e))
			return false; /* durable, but not known */
		e->memory = next;
	}
	return true;
}

static bool deliver(struct engine *e, enum round_event event, int64_t now)
{
	enum round_action action;
	if (event == ROUND_EVENT_ACCEPTED) {
		if (round_accepts(&e->memory, now) != ERR_OK)
			return true;
		if (dies(e))
			return false;
		/* The row is what is durable. */
		e->disk.accepted++;
		if (dies(e))
			return false;
	}
	assert_ok(round_step(&e->memory, event, now, &action));
	return act(e, action, now);
}

static void restart(struct engine *e, int64_t now)
{
	e->memory = e->disk;
	e->dies_at = 0;
	assert_ok(round_check(&e->memory));
	assert_true(act(e, round_resume(&e->memory, now), now));
}

static void dying_anywhere_changes_nothing(void **state)
{
	(void)state;
	for (uint32_t reports = 0; reports <= 4; reports++) {
		for (unsigned at = 0; at < 40; at++) {
			struct engine e = {
				.memory = round_of(ROUND_OPEN, 0), .disk = round_of(ROUND_OPEN, 0), .dies_at = at};
			uint32_t sent = 0;
			/* Each plant sends until it has a receipt; one without a receipt asks again, and the row
			 * answers. */
			while (sent < reports) {
				if (e.disk.accepted > sent || e.disk.phase != ROUND_OPEN) {
					sent++;
					continue;
				}
				if (!deliver(&e, ROUND_EVENT_ACCEPTED, opened + sent))
					restart(&e, opened + sent);
			}
			if (!deliver(&e, ROUND_EVENT_TICK, deadline))
				restart(&e, deadline);
			assert_true(same(&e.memory, &e.disk));
			assert_int_equal(e.disk.accepted, reports);
			assert_int_equal(e.disk.phase, reports >= 2 ? ROUND_COMMITTED : ROUND_ABANDONED);
			assert_int_equal(e.seals, reports >= 2);
			/* Only a model can be made twice: the same one. */
			assert_true(reports >= 2 ? e.models == 1 || (e.models == 2 && e.dies_at == 0) : e.models == 0);
			assert_int_equal(e.commits, reports >= 2);
			assert_int_equal(e.abandons, reports < 2);
			assert_int_equal(round_resume(&e.disk, deadline), ROUND_NEXT);
		}
	}
}

static void random_walks_keep_the_invariants(void **state)
{
	(void)state;
	struct rng rng;
	rng_seed(&rng, 7);
	unsigned ends[ROUND_PHASE_COUNT] = {0};
	for (unsigned walk = 0; walk < 5000; walk++) {
		uint32_t cohort = 1 + (uint32_t)rng_below(&rng, 6), goal = 1 + (uint32_t)rng_below(&rng, cohort);
		struct round r = {.number = 1 + walk,
				  .cohort = cohort,
				  .goal = goal,
				  .quorum = 1 + (uint32_t)rng_below(&rng, goal),
				  .opened_ms = 0,
				  .deadline_ms = 50,
				  .grace_ms = (int64_t)rng_below(&rng, 3) * 10};
		uint32_t sealed_with = 0;
		int64_t now = 0;
		for (unsigned i = 0; i < 60; i++) {
			r.flowing = (uint32_t)rng_below(&rng, 3);
			/* A plant that is revoked: engine_dismiss(). */
			if (r.phase == ROUND_OPEN && r.accepted < r.cohort && rng_below(&rng, 40) == 0) {
				r.lost |= r.cohort == r.quorum;
				r.cohort -= r.cohort > r.quorum;
				r.goal = r.goal < r.cohort ? r.goal : r.cohort;
			}
			struct round was = r;
			enum round_action action = ROUND_ACTION_COUNT;
			enum round_event event = (enum round_event)rng_below(&rng, ROUND_EVENT_COUNT);
			now += (int64_t)rng_below(&rng, 4) - 1;
			enum err e = round_step(&r, event, now, &action);
			assert_ok(round_check(&r));
			assert_true(e == ERR_OK || e == ERR_STATE);
			assert_true(e == ERR_OK || same(&r, &was));
			assert_int_equal(action != ROUND_ACTION_COUNT, e == ERR_OK);
			assert_true(r.phase >= was.phase && r.accepted >= was.accepted);
			if (was.phase == ROUND_OPEN && r.phase == ROUND_SEALED)
				sealed_with = r.accepted;
			/* Sealed is sealed. */
			assert_true(r.phase == ROUND_OPEN || r.phase == ROUND_ABANDONED || r.accepted == sealed_with);
			/* Only the goal, or the time with a quorum, seals; nothing is waited for beyond the grace. */
			if (e == ERR_OK && was.phase == ROUND_OPEN && action == ROUND_SEAL)
				assert_true(r.accepted >= r.goal || (r.accepted >= r.quorum && now >= r.deadline_ms));
			if (e == ERR_OK && was.phase == ROUND_OPEN && action == ROUND_ABANDON)
				assert_true(event == ROUND_EVENT_STOP || r.accepted < r.quorum);
			if (e == ERR_OK && r.phase == ROUND_OPEN && now >= r.deadline_ms + r.grace_ms)
				assert_true(action != ROUND_NOTHING);
			/* No way back, and no way from one end to the other. */
			assert_true(was.phase < ROUND_COMMITTED || r.phase == was.phase);
			/* What a restart would do is what is still to be done. */
			enum round_action resumed = round_resume(&r, now);
			assert_true(r.phase != ROUND_SEALED || resumed == ROUND_AGGREGATE);
			assert_true(r.phase != ROUND_AGGREGATED || resumed == ROUND_COMMIT);
			assert_true(r.phase < ROUND_COMMITTED || resumed == ROUND_NEXT);
		}
		ends[r.phase]++;
	}
	/* The walks went everywhere. */
	assert_true(ends[ROUND_COMMITTED] > 100 && ends[ROUND_ABANDONED] > 100);
}

static struct round flawed;

static void validate_flawed(void)
{
	round_validate(&flawed);
}

static void broken_rounds_are_found(void **state)
{
	(void)state;
	static const struct {
		struct round r;
		const char *says;
	} cases[] = {
		{{.number = 0, .cohort = 2, .goal = 2, .quorum = 1, .deadline_ms = 1}, "numbered"},
		{{.number = 1, .cohort = 3, .goal = 1, .quorum = 2, .deadline_ms = 1}, "goal"},
		{{.number = 1, .cohort = 3, .goal = 4, .quorum = 2, .deadline_ms = 1}, "goal"},
		{{.number = 1, .cohort = 3, .goal = 0, .quorum = 2, .deadline_ms = 1}, "goal"},
		{{.number = 1, .cohort = 2, .goal = 2, .quorum = 1, .deadline_ms = 1, .grace_ms = -1}, "grace"},
		{{.number = 1, .cohort = 2, .goal = 2, .quorum = 1, .opened_ms = -2, .deadline_ms = 1}, "1970"},
		{{.number = 1, .cohort = 2, .quorum = 0, .deadline_ms = 1}, "quorum"},
		{{.number = 1, .cohort = 2, .quorum = 3, .deadline_ms = 1}, "quorum"},
		{{.number = 1, .cohort = 0, .quorum = 0, .deadline_ms = 1}, "quorum"},
		{{.number = 1, .cohort = 2, .goal = 2, .quorum = 1, .accepted = 3, .deadline_ms = 1}, "more updates"},
		{{.number = 1, .cohort = 2, .goal = 2, .quorum = 1, .deadline_ms = 0}, "deadline"},
		{{.number = 1,
		  .phase = ROUND_SEALED,
		  .cohort = 3,
		  .goal = 3,
		  .quorum = 2,
		  .accepted = 1,
		  .deadline_ms = 1},
		 "quorum"},
		{{.number = 1,
		  .phase = ROUND_PHASE_COUNT,
		  .cohort = 3,
		  .goal = 3,
		  .quorum = 2,
		  .accepted = 2,
		  .deadline_ms = 1},
		 "phase"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		flawed = cases[i].r;
		assert_fails(round_check(&flawed), ERR_CORRUPT, cases[i].says);
		assert_dies(validate_flawed);
	}
	flawed = round_of(ROUND_OPEN, 0);
	assert_ok(round_check(&flawed));
	assert_int_equal(status_of(validate_flawed), 0);
}

static void phases_have_names(void **state)
{
	(void)state;
	static const char *const names[] = {"open", "sealed", "aggregated", "committed", "abandoned"};
	enum round_phase phase = ROUND_OPEN;
	for (int i = 0; i < ROUND_PHASE_COUNT; i++) {
		assert_string_equal(round_phase_name((enum round_phase)i), names[i]);
		assert_ok(round_phase_parse(names[i], &phase));
		assert_int_equal(phase, i);
	}
	assert_fails(round_phase_parse("Open", &phase), ERR_MALFORMED, "'Open'");
	assert_fails(round_phase_parse("", &phase), ERR_MALFORMED, "phase");
	assert_int_equal(phase, ROUND_ABANDONED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_event_in_every_phase),
		cmocka_unit_test(an_open_round_is_judged_by_count_and_time),
		cmocka_unit_test(the_goal_closes_early),
		cmocka_unit_test(what_flows_at_the_deadline_is_waited_for),
		cmocka_unit_test(a_lost_quorum_ends_the_round_at_once),
		cmocka_unit_test(a_full_round_takes_no_more),
		cmocka_unit_test(a_seal_needs_the_quorum),
		cmocka_unit_test(updates_are_accepted_until_the_deadline),
		cmocka_unit_test(dying_anywhere_changes_nothing),
		cmocka_unit_test(random_walks_keep_the_invariants),
		cmocka_unit_test(broken_rounds_are_found),
		cmocka_unit_test(phases_have_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
