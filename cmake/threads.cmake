# ADAFACTOR_THREADS, the kind of threads that the headers use: in the projects of this repository, and in those that
# find its package.
set(ADAFACTOR_THREADS "" CACHE STRING "pool, openmp or serial; empty: pool")
set_property(CACHE ADAFACTOR_THREADS PROPERTY STRINGS "" pool openmp serial)

# Gives a target what code with these threads is compiled and linked with, that of its users where `scope` is INTERFACE;
# a kind may be named after it. Sets ADAFACTOR_THREADS_KIND for the caller.
function(adafactor_use_threads target scope)
  set(kind "${ADAFACTOR_THREADS}")
  if(ARGC GREATER 2)
    set(kind "${ARGV2}")
  endif()
  if(kind STREQUAL "")
    set(kind pool)
  elseif(kind STREQUAL "openmp")
    find_package(OpenMP REQUIRED COMPONENTS CXX)
  elseif(NOT kind MATCHES "^(pool|serial)$")
    message(FATAL_ERROR "ADAFACTOR_THREADS is \"${kind}\", expected pool, openmp or serial")
  endif()
  target_compile_definitions(${target} ${scope} ADAFACTOR_THREADS=${kind})
  if(kind STREQUAL "openmp")
    target_link_libraries(${target} ${scope} OpenMP::OpenMP_CXX)
  endif()
  find_package(Threads REQUIRED) # the serial kind, too, is told of forks
  target_link_libraries(${target} ${scope} Threads::Threads)
  set(ADAFACTOR_THREADS_KIND "${kind}" PARENT_SCOPE)
endfunction()
