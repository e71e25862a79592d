#include "base/fault.h"

#include <errno.h>

static file_hook hook;
static void *hook_arg;

static const char *const names[] = {
	[FILE_OP_CREATE] = "create",     [FILE_OP_WRITE] = "write",   [FILE_OP_SYNC] = "sync",
	[FILE_OP_RENAME] = "rename",     [FILE_OP_REMOVE] = "remove", [FILE_OP_DIRSYNC] = "directory sync",
	[FILE_OP_TRUNCATE] = "truncate", [FILE_OP_MKDIR] = "mkdir",
};

void file_set_hook(file_hook new_hook, void *arg)
{
	hook = new_hook;
	hook_arg = arg;
}

static enum err ask(enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	enum err e = hook(hook_arg, op, path, n, ret_short);
	if (e == ERR_OK && *ret_short > 0)
		e = ERR_IO;
	if (e == ERR_OK)
		return ERR_OK;
	errno = EIO;
	return err_set(e, "%s: %s: injected fault", path, names[op]);
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
