/* settings: the parameters there are, their defaults, and what each of them takes */
#pragma once

#include "base/slice.h"
#include "settings/settings.h"

enum settings_kind {
        SETTINGS_READ_ONLY,
        SETTINGS_TIME,
        SETTINGS_COUNT,
        SETTINGS_SIZE,
        SETTINGS_BOOL,
        SETTINGS_FACILITY,
        SETTINGS_NAME,
        SETTINGS_FAREWELL,
};

struct settings_parameter {
        const char *name;
        const char *fallback; /* what stands in for a value that no file gives; NULL where it is read-only */
        enum settings_kind kind;
        size_t offset; /* of numbers and booleans in struct settings */
        bool zero;     /* 0 is taken, whatever the minimum */
        uint64_t minimum;
        uint64_t maximum;
};

#define SETTINGS_PARAMETERS 17

/* Sorted by name. */
extern const struct settings_parameter settings_parameters[SETTINGS_PARAMETERS];

#define SETTINGS_EXPECTED_MAX 192

/* The parameter of a name, or NULL. */
const struct settings_parameter *settings_parameter_find(struct slice name);

/* The parameter that a wrong name was probably meant for, or NULL. */
const struct settings_parameter *settings_parameter_guess(const char *name);

/* Understand an expanded value and put it into the settings. Returns 0, -ENOMEM, or -EINVAL with what was expected
 * in words; there is room for SETTINGS_EXPECTED_MAX bytes of them. */
int settings_parameter_set(const struct settings_parameter *parameter, const char *text,
        struct settings *settings, char *expected);
