/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* settings: $name in a value */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/slice.h"

/* Return the value of a name before expansion, or NULL; it must stay valid until the expansion ends. TESTED: the value only
 * decides between ? and :, so a missing one deserves no warning. */
typedef const char *(*settings_lookup_fn)(void *userdata, struct slice name, bool tested);

#define SETTINGS_PROBLEM_MAX 256

/* The limits of one expansion. Beyond them it is an error. */
#define SETTINGS_VALUE_MAX    4096u  /* bytes in a value, before and after expansion */
#define SETTINGS_EXPAND_DEPTH 100u   /* $name inside $name inside ... (Postfix has the same bound) */
#define SETTINGS_EXPAND_STEPS 10000u /* $name in one value, including those inside of others */

/* Expand a value as Postfix does:
 *
 *     $name  $(name)  ${name}          the expanded value of name; nothing if it has none
 *     ${name?text}  ${name?{text}}     text if the value of name is not empty
 *     ${name:text}  ${name:{text}}     text if it is empty or missing
 *     ${name?{text}:{text}}            one or the other
 *     ${{text}=={text}?{text}:{text}}  the same with == != < <= >= >, which compares two numbers, or strings
 *     $$                               a dollar sign
 *
 * NAME is the parameter that has the value; a value that refers to itself is an error. OUT has room for SETTINGS_VALUE_MAX +
 * 1 bytes, PROBLEM for SETTINGS_PROBLEM_MAX. Returns 0, or -EINVAL and the problem in words. */
int settings_expand(const char *name, const char *value, settings_lookup_fn lookup, void *userdata,
        char *out, char *problem);
