/*
 * The metrics that leave the plant: those that its own configuration names (`share:`), and no others. Pure.
 */
#ifndef HANSA_CLIENT_SHARE_H
#define HANSA_CLIENT_SHARE_H

#include "client/plant.h"
#include "rpc/wire.h"

/* Adds `value` as PREFIX NAME if the plant shares `name` and it is a number. */
void share_metric(const struct plant_config *c, struct wire_metrics *out, const char *prefix, const char *name,
		  double value);
/* The same for all of `m`; nothing without samples. */
void share_metrics(const struct plant_config *c, struct wire_metrics *out, const char *prefix, const struct metrics *m);

#endif
