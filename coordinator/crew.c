#include "coordinator/crew.h"

#include "base/mem.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

struct crew {
	crew_fn fn;
	void *arg;
	size_t n;

	pthread_mutex_t lock;
	size_t next;      /* under the lock, as what follows: the first item that nobody has taken */
	size_t failed_at; /* the lowest item that has failed */
	enum err err;     /* its failure */
	char *text;       /* owned */
};

struct member {
	struct crew *crew;
	unsigned number;
	pthread_t thread;
};

static bool take(struct crew *c, size_t *ret_item)
{
	pthread_mutex_lock(&c->lock);
	bool more = c->err == ERR_OK && c->next < c->n;
	if (more)
		*ret_item = c->next++;
	pthread_mutex_unlock(&c->lock);
	return more;
}

static void fail(struct crew *c, size_t item, enum err err)
{
	pthread_mutex_lock(&c->lock);
	if (c->err == ERR_OK || item < c->failed_at) {
		c->err = err;
		c->failed_at = item;
		free(c->text);
		c->text = mem_str(err_text());
	}
	pthread_mutex_unlock(&c->lock);
}

static void *work(void *arg)
{
	struct member *m = arg;
	size_t item;
	while (take(m->crew, &item)) {
		enum err err = m->crew->fn(m->crew->arg, m->number, item);
		if (err != ERR_OK)
			fail(m->crew, item, err);
	}
	return NULL;
}

enum err crew_run(unsigned threads, size_t n, crew_fn fn, void *arg)
{
	ENSURE(threads >= 1 && threads <= CREW_MAX);
	struct crew c = {.fn = fn, .arg = arg, .n = n};
	struct member members[CREW_MAX];
	unsigned made = 1;
	ENSURE(pthread_mutex_init(&c.lock, NULL) == 0);
	members[0] = (struct member){.crew = &c};
	while (made < threads) {
		members[made] = (struct member){.crew = &c, .number = made};
		if (pthread_create(&members[made].thread, NULL, work, &members[made]) != 0)
			break;
		made++;
	}
	work(&members[0]);
	for (unsigned i = 1; i < made; i++)
		pthread_join(members[i].thread, NULL);
	pthread_mutex_destroy(&c.lock);
	if (c.err != ERR_OK)
		err_set(c.err, "%s", c.text);
	free(c.text);
	return c.err;
}

unsigned crew_cpus(void)
{
	cpu_set_t set;
	if (sched_getaffinity(0, sizeof set, &set) != 0)
		return 1;
	int n = CPU_COUNT(&set);
	return n > 0 ? (unsigned)n : 1;
}
