#include "client/share.h"

#include <math.h>
#include <stdio.h>

void share_metric(const struct plant_config *c, struct wire_metrics *out, const char *prefix, const char *name,
		  double value)
{
	if (!plant_shares(c, name) || !isfinite(value) || out->n == WIRE_METRICS_MAX)
		return;
	struct wire_metric *m = &out->v[out->n++];
	snprintf(m->name, sizeof m->name, "%s%s", prefix, name);
	m->value = value;
}

void share_metrics(const struct plant_config *c, struct wire_metrics *out, const char *prefix, const struct metrics *m)
{
	if (m->n == 0)
		return;
	share_metric(c, out, prefix, "loss", m->loss);
	share_metric(c, out, prefix, "accuracy", m->accuracy);
	share_metric(c, out, prefix, "macro_f1", m->macro_f1);
	share_metric(c, out, prefix, "rmse", m->rmse);
}
