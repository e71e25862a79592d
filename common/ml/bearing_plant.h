/*
 * Between bearing.c and bearing_signal.c: the classes, and what a plant is in numbers.
 */
#ifndef HANSA_ML_BEARING_PLANT_H
#define HANSA_ML_BEARING_PLANT_H

#include "ml/bearing.h"

enum bearing_place { PLACE_NONE, PLACE_BALL, PLACE_INNER, PLACE_OUTER, PLACE_COUNT };
enum { BEARING_MODES = 3, BEARING_HARMONICS = 3 };

struct bearing_class {
	const char *name;
	enum bearing_place place;
	int mil; /* diameter of the defect, thousandths of an inch */
};
extern const struct bearing_class bearing_classes[]; /* name NULL ends; the order is CWRU's class_id */

struct bearing_plant {
	double load_hp, shaft_hz;
	double slip, jitter; /* of the impact interval: mean and random part, shares */
	struct {
		double hz, damping;       /* damping ratio */
		double from_rough;        /* gain of the surfaces' roughness */
		double from[PLACE_COUNT]; /* gain of an impact */
	} mode[BEARING_MODES];
	double zone;       /* Stribeck's load zone parameter, epsilon */
	double zone_floor; /* load outside of the zone: preload */
	double harmonic[BEARING_HARMONICS], harmonic_phase[BEARING_HARMONICS];
	double mesh, mesh_order;    /* tone at a multiple of the shaft speed: coupling, fan */
	double hum, hum_hz;         /* twice the line frequency */
	double noise, noise_colour; /* sensor and electronics: deviation in g; correlation from sample to sample */
	double rough;               /* deviation of the broad force of healthy rolling */
	double gain, cutoff_hz;     /* sensor */
};

/* Plant 0 is the lab: as designed. Others are drawn from (seed, number); `severity` scales how far they are from the
 * lab. */
void bearing_plant_draw(const struct bearing_config *config, int64_t number, struct bearing_plant *ret_plant);

/* Impacts per turn of the shaft; 0 for PLACE_NONE. */
double bearing_order(enum bearing_place place);
/* Turns of the cage per turn of the shaft. */
double bearing_cage_order(void);

/* Seconds that a ball takes to roll over `mil` at this shaft speed. */
double bearing_pass_seconds(int mil, double shaft_hz);

void bearing_generate(const struct bearing_config *config, int64_t number, const struct bearing_class *class,
		      float *out, size_t n);

#endif
