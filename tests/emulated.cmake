# gqa_leave_out(NAME FILTER): what takes an emulated processor minutes, and runs the kernels in no way
# that other tests do not. ctest lists it as disabled.
function(gqa_leave_out name filter)
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "GTEST_FILTER=-${filter}")
  add_test(NAME "${name}:${filter}" COMMAND ${name} --gtest_filter=${filter})
  set_tests_properties("${name}:${filter}" PROPERTIES LABELS unit DISABLED TRUE)
endfunction()

# One greedy and one sampled case stay.
gqa_leave_out(generate_batch_test */greedy_f32:*/greedy_bf16:*/greedy_int8:*/sampled_f32)
# The oracle's work, and products in plain C++.
gqa_leave_out(attend_backward_pairs_test AttendBackwardInBf16.EqualsTheOracleOnL*)
# Eigen's work, in which no kernel of ours takes part.
gqa_leave_out(learn_groups_test LearnGroups.Finds*)
# The shorter walks stay, which go through the same steps.
gqa_leave_out(kv_walk_test KvWalk.AMillion*)
# Chunks of one token give what whole sequences do, which stays; pages, which are no kernel's.
gqa_leave_out(approx_past_test ApproxPast.LaterTokens*:ApproxPast.Forks*)
# Eigen's work again; the conversions of its other tests stay.
gqa_leave_out(resume_refined_test ResumeRefined.InShards*:ResumeRefined.WithFewer*)
gqa_leave_out(kv_rank_test KvRank.WhatNeedsNoMore*)

# The program itself: its kernels beside a plain computation in double precision.
add_test(NAME doctor COMMAND gqa doctor)
set_tests_properties(doctor PROPERTIES LABELS unit)
