# ADAFACTOR_SANITIZE, the sanitizers that the projects of this repository are built with; any finding ends the program.
set(ADAFACTOR_SANITIZE "" CACHE STRING "What -fsanitize= gets, for example address,undefined; empty: nothing")

function(adafactor_sanitize target)
  if(ADAFACTOR_SANITIZE)
    set(flags -fsanitize=${ADAFACTOR_SANITIZE} -fno-sanitize-recover=all)
    target_compile_options(${target} INTERFACE ${flags} -g -fno-omit-frame-pointer)
    target_link_options(${target} INTERFACE ${flags})
  endif()
endfunction()
