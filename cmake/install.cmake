# What `cmake --install` puts where. Components: gqa_program, gqa_documents, gqa_shared, gqa_static, and
# gqa_development (headers, and what CMake and pkg-config ask for). Every path in the installed files is
# relative to the file itself: the tree may be moved.
include(CMakePackageConfigHelpers)
set(GQA_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/gqa)
set(GQA_PC_DIR ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# gqa_headers(RESULT LAYER...): their public headers, as the table of layers has them.
function(gqa_headers result)
  file(READ ${PROJECT_SOURCE_DIR}/cmake/layers.json table)
  set(headers)
  foreach(layer IN LISTS ARGN)
    string(JSON names GET "${table}" layers ${layer} headers)
    string(REGEX MATCHALL "[a-z0-9_]+\\.h" names "${names}")
    list(APPEND headers ${names})
  endforeach()
  list(TRANSFORM headers PREPEND ${PROJECT_SOURCE_DIR}/include/gqa/)
  set(${result} ${headers} PARENT_SCOPE)
endfunction()

# gqa_link_flags(RESULT LIBRARY...): outside libraries as a linker has them.
function(gqa_link_flags result)
  set(flags -pthread)
  foreach(library IN LISTS ARGN)
    if(library STREQUAL "OpenMP::OpenMP_CXX")
      list(APPEND flags ${OpenMP_CXX_FLAGS})
    elseif(library MATCHES "^PkgConfig::(.+)")
      list(TRANSFORM ${CMAKE_MATCH_1}_LIBRARIES PREPEND -l OUTPUT_VARIABLE names)
      list(APPEND flags ${names})
    elseif(library MATCHES "^(fmt|gqa)::(.+)|^OpenSSL::(Crypto)")
      string(TOLOWER -l${CMAKE_MATCH_2}${CMAKE_MATCH_3} name)
      list(APPEND flags ${name})
    elseif(NOT library STREQUAL "Threads::Threads")
      message(FATAL_ERROR "cmake/install.cmake: how is ${library} linked?")
    endif()
  endforeach()
  list(JOIN flags " " flags)
  set(${result} ${flags} PARENT_SCOPE)
endfunction()

# gqa_install_pc(FILE DESCRIPTION REQUIRES LAYER...). What static libraries link stands there as flags:
# as Requires.private even programs of the shared ones would have to have the packages.
function(gqa_install_pc file description requires)
  gqa_outside_libraries(outside ${ARGN})
  gqa_link_flags(private_libs ${outside})
  file(RELATIVE_PATH up /prefix/${GQA_PC_DIR} /prefix)
  string(REGEX REPLACE "/$" "" prefix "\${pcfiledir}/${up}")
  configure_file(${PROJECT_SOURCE_DIR}/cmake/library.pc.in ${PROJECT_BINARY_DIR}/${file}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${file}.pc DESTINATION ${GQA_PC_DIR} COMPONENT gqa_development)
endfunction()

gqa_install_pc(gqa-attention "Grouped-query attention, its KV cache and gradients" "" ${GQA_ATTENTION_LAYERS})
gqa_headers(headers ${GQA_ATTENTION_LAYERS})
if(NOT GQA_ATTENTION_ONLY)
  gqa_install_pc(gqa "${PROJECT_DESCRIPTION}" "gqa-attention = ${PROJECT_VERSION}" ${GQA_OTHER_LAYERS})
  gqa_headers(others ${GQA_OTHER_LAYERS})
  list(APPEND headers ${others})
endif()
install(FILES ${headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/gqa COMPONENT gqa_development)

foreach(library IN LISTS GQA_LIBRARIES)
  foreach(kind static shared)
    # Each in a file of its own, so that a program of gqa::attention need not have what gqa::gqa links.
    install(TARGETS libgqa_${library}_${kind} EXPORT gqa-${library}-${kind}
      DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT gqa_${kind})
    install(EXPORT gqa-${library}-${kind} NAMESPACE gqa:: DESTINATION ${GQA_CMAKE_DIR} COMPONENT gqa_${kind})
  endforeach()
endforeach()

list(JOIN GQA_LIBRARIES "|" GQA_LIBRARIES_REGEX)
set(GQA_OUTSIDE)
if(NOT GQA_ATTENTION_ONLY)
  gqa_outside_libraries(GQA_OUTSIDE ${GQA_OTHER_LAYERS})
endif()
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/gqa-config.cmake.in ${PROJECT_BINARY_DIR}/gqa-config.cmake
  INSTALL_DESTINATION ${GQA_CMAKE_DIR} NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/gqa-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/gqa-config.cmake ${PROJECT_BINARY_DIR}/gqa-config-version.cmake
  DESTINATION ${GQA_CMAKE_DIR} COMPONENT gqa_development)

# All that is installed, tests and examples not among it.
add_custom_target(gqa_installed)
foreach(library IN LISTS GQA_LIBRARIES)
  add_dependencies(gqa_installed libgqa_${library}_static libgqa_${library}_shared)
endforeach()
if(GQA_PROGRAM)
  add_dependencies(gqa_installed gqa)
  install(TARGETS gqa RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT gqa_program)
  # The OpenBLAS that it was built for, where the system has several.
  set_property(TARGET gqa PROPERTY INSTALL_RPATH_USE_LINK_PATH ON)
endif()

# gqa_install_completion(SHELL FILE FOLDER): what completes the command line, as the program prints it.
function(gqa_install_completion shell file folder)
  set(script ${PROJECT_BINARY_DIR}/completion/${file})
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/completion)
  add_custom_command(OUTPUT ${script} DEPENDS gqa VERBATIM COMMAND gqa completion ${shell} > ${script})
  add_custom_target(gqa_completion_${shell} ALL DEPENDS ${script})
  add_dependencies(gqa_installed gqa_completion_${shell})
  install(FILES ${script} DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/${folder} COMPONENT gqa_program)
endfunction()

if(GQA_PROGRAM AND NOT CMAKE_CROSSCOMPILING)
  gqa_install_completion(bash gqa bash-completion/completions)
  gqa_install_completion(zsh _gqa zsh/vendor-completions)
endif()

install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/README.md
  DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/gqa COMPONENT gqa_documents)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs
  DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/gqa COMPONENT gqa_documents)
