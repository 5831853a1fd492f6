# The stand-alone tests and benchmarks of the CUDA kernels: every .cu here and in tests/backend/cuda is a program, linked
# with what it needs of an archive of all kernels. No third-party header, no other library of the project (bench/cuda/build.sh
# does the same without CMake). Built with the preset cuda-kernels, elsewhere by the target cuda_programs.
file(GLOB checks CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/backend/cuda/*.cu)
file(GLOB benches CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/cuda/*.cu)
file(GLOB host CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backend/cuda/hopper_*.cc)
add_library(atom_cuda_archive STATIC EXCLUDE_FROM_ALL ${host} $<TARGET_OBJECTS:atom_cuda_kernels>
            $<TARGET_OBJECTS:atom_cuda_hopper>)
target_include_directories(atom_cuda_archive PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(atom_cuda_archive PUBLIC CUDA::cudart_static)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has it
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
endif()
add_custom_target(cuda_programs)  # all of them
set(excluded EXCLUDE_FROM_ALL)
if(ATOM_ONLY_CUDA_KERNELS)
  set(excluded "")
endif()
foreach(program ${checks} ${benches})
  get_filename_component(name ${program} NAME_WE)
  file(STRINGS ${program} library REGEX "<cublasLt.h>|linear_library.cuh")
  if(library AND NOT TARGET CUDA::cublasLt)
    message(STATUS "CUDA kernels: ${name} is left out, cuBLASLt is not found")
    continue()
  endif()
  add_executable(${name} ${excluded} ${program})
  add_dependencies(cuda_programs ${name})
  set_target_properties(${name} PROPERTIES CUDA_ARCHITECTURES 90a-real CUDA_STANDARD 20
                        CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
                        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
  target_compile_options(${name} PRIVATE -fmad=false)
  target_link_libraries(${name} PRIVATE atom_cuda_archive)
  if(library)
    target_link_libraries(${name} PRIVATE CUDA::cublasLt)
  endif()
  if(ATOM_ONLY_CUDA_KERNELS AND name MATCHES "_check$")
    add_test(NAME ${name} COMMAND ${name})  # needs the device
  endif()
endforeach()
