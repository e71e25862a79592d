/*
 * What people and programs read: metrics as text and as JSON.
 */
#ifndef HANSA_CLIENT_REPORT_H
#define HANSA_CLIENT_REPORT_H

#include "base/json.h"
#include "ml/train.h"

/* {"accuracy","loss","macro_f1","samples"} or {"loss","rmse","samples"}; null without samples. */
struct json *report_metrics(const struct metrics *m);
/* "accuracy 0.981, macro-F1 0.979, loss 0.062 (340 samples)"; returns out. */
enum { REPORT_TEXT_SIZE = 160 };
const char *report_format(const struct metrics *m, char out[REPORT_TEXT_SIZE]);
/* One line on stdout. */
void report_print(const struct json *v);

#endif
