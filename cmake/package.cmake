# One package of everything that is installed, as a .deb and as a .tar.gz: ./dev package.
set(CPACK_PACKAGE_NAME gqa)
set(CPACK_PACKAGE_CONTACT "The gqa authors")
set(CPACK_PACKAGE_DESCRIPTION
  "Converts multi-head checkpoints to grouped-query attention, runs and measures them.\n\
The program gqa; the libraries gqa::gqa (all of it) and gqa::attention (attention, its KV cache and\n\
gradients), shared and static, with headers, for CMake and for pkg-config.")
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_MONOLITHIC_INSTALL ON)
set(CPACK_STRIP_FILES ON)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# Any BLAS would satisfy the loader; what was measured and is safe from many threads is this one.
set(CPACK_DEBIAN_PACKAGE_DEPENDS libopenblas0-pthread)
# What the static libraries link.
set(CPACK_DEBIAN_PACKAGE_SUGGESTS
  "g++, cmake, pkg-config, libhwy-dev, libfmt-dev, libonig-dev, libssl-dev, libopenblas-pthread-dev, libdnnl-dev")
include(CPack)

# Where dpkg looks for the licence.
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE RENAME copyright
  DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/gqa COMPONENT gqa_documents)
