// Json with all that can be done to it.
#pragma once

#include <nlohmann/json.hpp>

#include "io/json.h"
