# What a build of ONNX Runtime takes from a folder of Debian's packages, so that it downloads nothing and links what it
# needs into its library. CMAKE_PROJECT_onnxruntime_INCLUDE names this file.
#
#   ORTCAM_HEADERS    Debian's /usr/include
#   ORTCAM_LIBRARIES  Debian's folder of static libraries
#   ORTCAM_ABSEIL     the source of Abseil
#   ORTCAM_ONNX       the source of ONNX
#   ORTCAM_PROTOBUF   the source of Protocol Buffers
#   ORTCAM_NOTHING    an empty folder
#   ORTCAM_WITHOUT    a list of sources that are not needed

foreach(name ABSEIL_CPP DATE EIGEN FLATBUFFERS GSL MP11 NLOHMANN_JSON PROTOBUF RE2 UTF8_RANGE)
  set(FETCHCONTENT_SOURCE_DIR_${name} ${ORTCAM_NOTHING})
endforeach()
set(FETCHCONTENT_SOURCE_DIR_ONNX ${ORTCAM_ONNX})
set(safeint_SOURCE_DIR ${ORTCAM_HEADERS}/safeint)

foreach(name Boost::mp11 Eigen3::Eigen Microsoft.GSL::GSL date::date nlohmann_json::nlohmann_json)
  add_library(${name} INTERFACE IMPORTED GLOBAL)
endforeach()
target_include_directories(Eigen3::Eigen INTERFACE ${ORTCAM_HEADERS}/eigen3)

file(STRINGS ${CMAKE_CURRENT_SOURCE_DIR}/external/abseil-cpp.cmake names REGEX "^absl::")
foreach(name ${names})
  string(REPLACE ")" "" name ${name})
  add_library(${name} INTERFACE IMPORTED GLOBAL)
endforeach()

# No shared library can have Debian's static ones of Abseil and Protocol Buffers in it: their variables of threads are
# those of a program. So they are compiled, with Debian's headers. They are imported all the same, since of an imported
# library nobody asks how it is installed.
function(ortcam_compile name)
  add_library(ortcam_${name} STATIC ${ARGN})
  target_compile_options(ortcam_${name} PRIVATE -w)
  set_target_properties(ortcam_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_STANDARD 17)
  add_library(ortcam::${name} STATIC IMPORTED GLOBAL)
  set_target_properties(ortcam::${name} PROPERTIES IMPORTED_LOCATION ${CMAKE_BINARY_DIR}/libortcam_${name}.a)
  add_dependencies(ortcam::${name} ortcam_${name})
endfunction()
set(parts base container crc debugging hash numeric profiling strings synchronization time types)
list(TRANSFORM parts REPLACE "(.+)" "${ORTCAM_ABSEIL}/absl/\\1/*.cc")
file(GLOB_RECURSE sources ${parts})
list(FILTER sources EXCLUDE REGEX "test|benchmark|mock|print_hash|matchers")
ortcam_compile(abseil ${sources})
target_link_libraries(absl::base INTERFACE ortcam::abseil)
file(STRINGS ${ORTCAM_PROTOBUF}/cmake/libprotobuf-lite.cmake sources REGEX "\\.cc$")
list(TRANSFORM sources REPLACE ".*}" ${ORTCAM_PROTOBUF})
ortcam_compile(protobuf ${sources})
target_include_directories(ortcam_protobuf PRIVATE ${ORTCAM_PROTOBUF}/src)
add_library(protobuf::libprotobuf-lite INTERFACE IMPORTED GLOBAL)
target_link_libraries(protobuf::libprotobuf-lite INTERFACE ortcam::protobuf)

foreach(name flatbuffers::flatbuffers protobuf::libprotobuf re2::re2)
  string(REGEX REPLACE ".*::(lib)?" "lib" file ${name})
  add_library(${name} STATIC IMPORTED GLOBAL)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${ORTCAM_LIBRARIES}/${file}.a)
endforeach()

# Saves hours of compilation: what the linker would throw away is not compiled, and eight files are compiled as one.
function(ortcam_compile_less)
  get_target_property(sources onnxruntime_providers SOURCES)
  file(STRINGS ${ORTCAM_WITHOUT} without)
  list(REMOVE_ITEM sources ${without})
  set_target_properties(onnxruntime_providers PROPERTIES SOURCES "${sources}")
  foreach(name common framework graph optimizer providers session util)
    set_target_properties(onnxruntime_${name} PROPERTIES UNITY_BUILD ON)
  endforeach()
  # These have what the macros of others specialise, or names that others have.
  list(FILTER sources INCLUDE REGEX "/(cpu_execution_provider|cpu_contrib_kernels|cpu_provider_factory|slice)\\.cc$")
  set_property(SOURCE ${sources} PROPERTY SKIP_UNITY_BUILD_INCLUSION ON)
  # Clang knows these instructions from version 16 on; binutils knows them longer.
  set_property(SOURCE ${ONNXRUNTIME_ROOT}/core/mlas/lib/x86_64/cvtfp16Avx.S APPEND PROPERTY COMPILE_OPTIONS -fno-integrated-as)
endfunction()
cmake_language(DEFER CALL ortcam_compile_less)
