// The threads of a program whose files only declare; the one object that knows which kind they are.
#define ADAFACTOR_DEFINES_THREADS 1
#include "adafactor/cpu/threads/threads.hpp"
