# The libraries that others link: libgqa-attention (core, kernels, cache and attention) and libgqa (all
# else, and links the first). Both kinds, static and shared, are made of the layers' objects, so that
# nothing is compiled for them. The program itself links the layers: it then starts without looking
# for libraries of ours, wherever it is copied to.

# gqa_outside_libraries(RESULT LAYER...): what these layers link besides each other, without what
# consists of headers alone. Libraries that were found as files become imported targets, gqa::openblas
# for libopenblas.so: whoever links an installed static library finds them anew.
function(gqa_outside_libraries result)
  set(found)
  foreach(layer IN LISTS ARGN)
    get_target_property(links gqa_${layer} LINK_LIBRARIES)
    foreach(link IN LISTS links)
      string(REGEX REPLACE "^\\$<LINK_ONLY:(.*)>$" "\\1" link "${link}")
      if(link MATCHES "^gqa_")
        continue()
      elseif(TARGET ${link})
        get_target_property(type ${link} TYPE)
        get_target_property(files ${link} INTERFACE_LINK_LIBRARIES)
        if(type STREQUAL INTERFACE_LIBRARY AND NOT files)
          continue()
        endif()
      elseif(IS_ABSOLUTE "${link}")
        cmake_path(GET link STEM name)
        string(REGEX REPLACE "^lib" "gqa::" name ${name})
        if(NOT TARGET ${name})
          add_library(${name} UNKNOWN IMPORTED GLOBAL)
          set_property(TARGET ${name} PROPERTY IMPORTED_LOCATION ${link})
        endif()
        set(link ${name})
      endif()
      list(APPEND found ${link})
    endforeach()
  endforeach()
  list(REMOVE_DUPLICATES found)
  set(${result} ${found} PARENT_SCOPE)
endfunction()

# gqa_library(NAME FILE LAYERS layer... [USES name]): gqa::NAME, in lib{FILE}.a and lib{FILE}.so.
function(gqa_library name file)
  cmake_parse_arguments(ARG "" "USES" "LAYERS" ${ARGN})
  gqa_outside_libraries(outside ${ARG_LAYERS})
  set(objects ${ARG_LAYERS})
  list(TRANSFORM objects REPLACE "(.+)" "$<TARGET_OBJECTS:gqa_\\1>")
  foreach(kind static shared)
    set(target libgqa_${name}_${kind})
    string(TOUPPER ${kind} type)
    add_library(${target} ${type} ${objects})
    set_target_properties(${target} PROPERTIES
      OUTPUT_NAME ${file} EXPORT_NAME ${name} LINKER_LANGUAGE CXX)
    target_compile_features(${target} INTERFACE cxx_std_20)
    target_include_directories(${target} INTERFACE
      $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
    if(ARG_USES)
      target_link_libraries(${target} PUBLIC libgqa_${ARG_USES}_${kind})
    endif()
    target_link_libraries(${target} PRIVATE ${outside})
  endforeach()

  # Until 1.0 a minor version may change the interface.
  set_target_properties(${target} PROPERTIES
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
    LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/exports.map
    INSTALL_RPATH $ORIGIN INSTALL_RPATH_USE_LINK_PATH ON)
  target_link_options(${target} PRIVATE
    LINKER:--version-script=${PROJECT_SOURCE_DIR}/cmake/exports.map LINKER:--as-needed)
  if(NOT GQA_SANITIZE)  # sanitizers leave symbols to the program
    target_link_options(${target} PRIVATE LINKER:-z,defs)
  endif()
  if(ARG_USES)
    # A few helpers of the layers below are no part of what libgqa-attention exports: this library has
    # its own copies, and keeps them to itself.
    list(TRANSFORM GQA_ATTENTION_LAYERS PREPEND gqa_ OUTPUT_VARIABLE below)
    target_link_libraries(${target} PRIVATE ${below})
    target_link_options(${target} PRIVATE LINKER:--exclude-libs,ALL)
  endif()

  if(BUILD_SHARED_LIBS)
    add_library(gqa::${name} ALIAS libgqa_${name}_shared)
  else()
    add_library(gqa::${name} ALIAS libgqa_${name}_static)
  endif()
endfunction()

include(GNUInstallDirs)
set(GQA_ATTENTION_LAYERS core kernels kv attention)
set(GQA_OTHER_LAYERS approx io tokenizer model eval regroup convert tune)
if(TARGET gqa_bench)
  list(APPEND GQA_OTHER_LAYERS bench)
endif()
set(GQA_LIBRARIES attention)
gqa_library(attention gqa-attention LAYERS ${GQA_ATTENTION_LAYERS})
if(NOT GQA_ATTENTION_ONLY)
  list(APPEND GQA_LIBRARIES gqa)
  gqa_library(gqa gqa LAYERS ${GQA_OTHER_LAYERS} USES attention)
endif()
