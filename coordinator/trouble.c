#include "coordinator/trouble.h"

#include "base/log.h"

static const bool ours[ERR_COUNT] = {
	[ERR_IO] = true, [ERR_CORRUPT] = true, [ERR_CRYPTO] = true, [ERR_STATE] = true, [ERR_INTERNAL] = true,
};

static enum err hide(enum err err, const char *what, const char *told)
{
	log_error("trouble", "%s: %s (%s)", what, err_text(), err_name(err));
	return err_set(ERR_UNAVAILABLE, "%s", told);
}

enum err trouble_hide(enum err err, const char *what, const char *told)
{
	return ours[err] ? hide(err, what, told) : err;
}

enum err trouble_hide_file(enum err err, const char *what, const char *told)
{
	return err == ERR_NOT_FOUND ? hide(err, what, told) : trouble_hide(err, what, told);
}
