/*
 * The hook is set before threads start, so it is read without a lock. The counters of syncs are two independent sums:
 * a reader may see the count of a sync whose time it does not see yet.
 */
#include "base/fault.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

static file_hook hook;
static void *hook_arg;
static atomic_uint_fast64_t sync_count, sync_ns;

static const char *const names[] = {
	[FILE_OP_CREATE] = "create",     [FILE_OP_WRITE] = "write",   [FILE_OP_SYNC] = "sync",
	[FILE_OP_RENAME] = "rename",     [FILE_OP_REMOVE] = "remove", [FILE_OP_DIRSYNC] = "sync directory",
	[FILE_OP_TRUNCATE] = "truncate", [FILE_OP_MKDIR] = "mkdir",
};

void file_set_hook(file_hook new_hook, void *arg)
{
	hook = new_hook;
	hook_arg = arg;
}

static enum err ask(enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	int before = errno;
	errno = 0;
	enum err e = hook(hook_arg, op, path, n, ret_short);
	int number = errno;
	errno = before;
	if (e == ERR_OK && *ret_short > 0)
		e = ERR_IO;
	if (e == ERR_OK)
		return ERR_OK;
	errno = number != 0 ? number : EIO;
	char why[128];
	return err_set(e, "%s: cannot %s: %s", path, names[op],
		       number != 0 ? strerror_r(number, why, sizeof why) : "injected fault");
}

enum err fault_ask(enum file_op op, const char *path)
{
	size_t unused = 0;
	return hook == NULL ? ERR_OK : ask(op, path, 0, &unused);
}

enum err fault_ask_write(const char *path, size_t n, size_t *ret_allowed)
{
	size_t part = 0;
	enum err e = hook == NULL ? ERR_OK : ask(FILE_OP_WRITE, path, n, &part);
	ENSURE(part <= n);
	*ret_allowed = e == ERR_OK ? n : part;
	return e;
}

uint64_t fault_sync_begin(void)
{
	int before = errno;
	struct timespec now;
	ENSURE(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
	errno = before;
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void fault_sync_end(uint64_t begin)
{
	atomic_fetch_add_explicit(&sync_ns, fault_sync_begin() - begin, memory_order_relaxed);
	atomic_fetch_add_explicit(&sync_count, 1, memory_order_relaxed);
}

void file_get_sync_stats(uint64_t *ret_count, uint64_t *ret_ns)
{
	*ret_count = atomic_load_explicit(&sync_count, memory_order_relaxed);
	*ret_ns = atomic_load_explicit(&sync_ns, memory_order_relaxed);
}
