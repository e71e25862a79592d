/*
 * Synthetic rolling-bearing vibration: plants with faults that differ in speed, load, transfer path, sensor and noise.
 *
 * Signal model: impact trains at the ball-pass frequencies with random slip, exciting structural resonances, modulated
 *by load: P. D. McFadden, J. D. Smith: Model for the vibration produced by a single point defect in a rolling element
 *bearing, J. Sound Vib. 96 (1984); J. Antoni, R. B. Randall: A stochastic model for simulation and diagnostics of
 *rolling element bearings with localized faults, J. Vib. Acoust. 125 (2003); N. Sawalhi, R. B. Randall: Vibration
 *response of spalled rolling element bearings, Mech. Syst. Signal Process. 25 (2011): entry and exit of a spall.
 * Kinematics of the SKF 6205-2RS of the CWRU rig (9 balls, ball 7.94 mm, pitch 39.04 mm, contact angle 0). Sizes and
 *decays are chosen, not measured: the signals look and behave like such recordings but stand for no real machine.
 *
 * Deterministic: every recording has streams of its own made of seed, plant and class, and is rounded to the steps of a
 *16-bit converter, so that last-digit differences between mathematical libraries all but never reach the file.
 */
#ifndef HANSA_ML_BEARING_H
#define HANSA_ML_BEARING_H

#include "base/config.h"

struct bearing_config {
	int64_t seed;
	int64_t plants;       /* 4: folders load0 (the lab) and load1 ... */
	double seconds, rate; /* of each recording: 10 s at 12 000 samples/s */
	double severity;      /* scale of the differences between plants; 1: as designed */
};
extern const struct config_row bearing_rows[];

/* Writes DIR/loadN/CLASS.npy and DIR/index.csv (layout of CWRU's files); deterministic in the configuration. Each file
 * durable, index.csv last. */
MUST_CHECK enum err bearing_write(const struct bearing_config *config, const char *dir);

/* One recording in g: n samples of class `name` ("normal", "B007", ..., "OR021") at plant `plant`. Pure; a shorter one
 * is the beginning of a longer one. ERR_NOT_FOUND for an unknown class or plant. */
MUST_CHECK enum err bearing_signal(const struct bearing_config *config, int64_t plant, const char *name, float *out,
				   size_t n);

/* What the envelope spectrum should show: nominal shaft speed and fault frequency (0 for "normal") in Hz. ERR_NOT_FOUND
 * as above. */
MUST_CHECK enum err bearing_frequencies(const struct bearing_config *config, int64_t plant, const char *name,
					double *ret_shaft, double *ret_fault);

#endif
