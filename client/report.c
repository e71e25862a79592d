#include "client/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

struct json *report_metrics(const struct metrics *m)
{
	if (m->n == 0)
		return json_str(NULL);
	struct json *v = json_map();
	json_put(v, "samples", json_int((int64_t)m->n));
	json_put(v, "loss", json_num(m->loss));
	if (isfinite(m->accuracy)) {
		json_put(v, "accuracy", json_num(m->accuracy));
		json_put(v, "macro_f1", json_num(m->macro_f1));
	}
	if (isfinite(m->rmse))
		json_put(v, "rmse", json_num(m->rmse));
	return v;
}

const char *report_format(const struct metrics *m, char out[REPORT_TEXT_SIZE])
{
	if (m->n == 0)
		snprintf(out, REPORT_TEXT_SIZE, "no samples");
	else if (isfinite(m->accuracy))
		snprintf(out, REPORT_TEXT_SIZE, "accuracy %.4f, macro-F1 %.4f, loss %.4f (%zu samples)", m->accuracy,
			 m->macro_f1, m->loss, m->n);
	else
		snprintf(out, REPORT_TEXT_SIZE, "RMSE %.4g, loss %.4g (%zu samples)", m->rmse, m->loss, m->n);
	return out;
}

void report_print(const struct json *v)
{
	struct buf text;
	buf_init(&text, 16 << 20);
	if (json_write(v, &text) == ERR_OK) {
		fwrite(text.p, 1, text.n, stdout);
		fputc('\n', stdout);
		fflush(stdout);
	}
	buf_deinit(&text);
}
