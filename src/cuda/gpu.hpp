// The phases of a step on a GPU: a fixed list of launches over the pieces of all leaves, whose tables lie on the
// device. The host asks for it and waits for nothing but the end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <span>
#include <type_traits>
#include <utility>

#include "adafactor/host/memory.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/step/backend.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/step/workspace.hpp"
#include "runtime.hpp"
#include "view.hpp"
#include "work.hpp"

namespace adafactor::cuda { inline namespace ADAFACTOR_ABI {

// Which kernels some leaf of a call needs, as far as the host can tell. The others would return at once, but not for
// nothing.
struct Needs {
  // The types of gradients and parameters that are read in place.
  bool in_place[kDTypes.size()][kDTypes.size()] = {};
  bool column_moments = false;
  bool slice_moments = false;
  bool cell_squares = false;
  bool cell_rms = false;

  void add(const Leaf& leaf) {
    const LeafArrays& at = leaf.at;
    const bool makes = makes_moments(leaf);
    const bool reads = reads_in_place(leaf);
    if (reads)
      in_place[static_cast<std::size_t>(at.gradient.dtype)][static_cast<std::size_t>(at.parameter.dtype)] = true;
    if (makes && !reads) (has_small_slices(leaf) ? slice_moments : column_moments) = true;
    if (leaf.in_verdict() && (!makes || (is_narrow(leaf) && leaf.rule.clip_value > 0))) cell_squares = true;
    const bool measures = leaf.measures() && !leaf.measures_early();
    if (measures && (!reads || !at.parameter.contiguous || leaf.rule.clamps)) cell_rms = true;
  }
};

// What the host keeps with a workspace.
struct GpuScratch {
  GpuScratch(const Plan& plan, adafactor::detail::Pieces& pieces)
      : work(plan, pieces),
        leaves(pieces.take<Leaf>(static_cast<std::int64_t>(plan.leaves().size()))),
        places_in_verdict(pieces.take<std::int32_t>(static_cast<std::int64_t>(plan.leaves().size()))) {}

  HostWork work;
  std::span<Leaf> leaves;                     // on their way to the device and back
  std::span<std::int32_t> places_in_verdict;  // on their way
  Verdict verdict;                            // on its way back
  View view;
  bool is_on_device = false;   // whether the device has what the host knows of the call
  bool is_on_its_way = false;  // whether what was found is
  Needs needs;
};

// The bytes of scratch that a plan takes on a device.
inline std::int64_t device_scratch_nbytes(const Plan& plan) {
  adafactor::detail::Pieces pieces;
  DeviceScratch(plan, count_work(plan), pieces);
  return pieces.nbytes();
}

class GpuBackend final : public Backend {
 public:
  explicit GpuBackend(Runtime& runtime) : runtime_(runtime) {}

  // What holds for the calls that are begun from now on.
  void set_loss_scale(const LossScale& loss_scale) { loss_scale_ = loss_scale; }

  std::int64_t scratch_nbytes(const Plan& plan) const override {
    return adafactor::detail::nbytes_of<GpuScratch>(plan);
  }
  std::int64_t device_nbytes(const Plan& plan) const override { return device_scratch_nbytes(plan); }

  void prepare(Workspace& workspace) const override {
    const Plan& plan = workspace.plan;
    auto& scratch = *adafactor::detail::make_in<GpuScratch>(workspace.of_backend(), plan);
    const DeviceScratch device = on_device(workspace, scratch);
    const Entered entered = runtime_.enter();
    scratch.view = view_of(device, plan);
    copy_in(device.tiles, std::span(plan.tiles()));
    copy_in(device.places, scratch.work.places);
    copy_lists(device.float32, scratch.work.float32);
    copy_lists(device.float64, scratch.work.float64);
    runtime_.zero(device.sums, static_cast<std::int64_t>(plan.tiles().size() * sizeof(TileSums)));
    // The tiles belong to a plan which may end before anything is done.
    runtime_.wait();
  }

  void run(Workspace& workspace, Phases phases, Indices leaves) const override {
    GpuScratch& scratch = scratch_of(workspace);
    const Entered entered = runtime_.enter();
    // Whoever gives up in the middle waits for what is on its way.
    if (!std::exchange(scratch.is_on_device, true)) send(workspace, scratch);
    View view = scratch.view;
    view.range = leaves;
    for (int phase = static_cast<int>(phases.first); phase <= static_cast<int>(phases.last); ++phase) {
      launch(static_cast<Phase>(phase), view, scratch);
    }
  }

  void copy(void* to, const void* from, std::int64_t nbytes) const override {
    const Entered entered = runtime_.enter();
    runtime_.copy(to, from, nbytes);
  }

  void collect(Workspace& workspace) const override {
    GpuScratch& scratch = scratch_of(workspace);
    if (!scratch.is_on_device) return;
    scratch.is_on_device = false;
    const Entered entered = runtime_.enter();
    const DeviceScratch device = on_device(workspace, scratch);
    copy_out(scratch.leaves, device.leaves);
    copy_out(std::span(&scratch.verdict, 1), device.verdict);
    copy_out(workspace.sums, device.sums);
    copy_out(workspace.shared, device.shared);
    for (std::size_t i = 0; i < scratch.leaves.size(); ++i) {
      // The step of a part is found by the host, which looks at its M.
      const Leaf& leaf = workspace.leaves[i];
      if (!leaf.is_part() || !leaf.at.mean_moment) continue;
      copy_out(std::span(leaf.at.mean_moment, static_cast<std::size_t>(leaf.shape.slices)),
               scratch.leaves[i].at.mean_moment);
    }
    runtime_.mark();
    scratch.is_on_its_way = true;
  }

  void finish(Workspace& workspace) const override {
    GpuScratch& scratch = scratch_of(workspace);
    collect(workspace);
    if (!scratch.is_on_its_way) return;
    const Entered entered = runtime_.enter();
    runtime_.await_mark();
    scratch.is_on_its_way = false;
    for (std::size_t i = 0; i < scratch.leaves.size(); ++i) workspace.leaves[i].found = scratch.leaves[i].found;
    workspace.verdict = scratch.verdict;
  }

 private:
  static GpuScratch& scratch_of(Workspace& workspace) { return reinterpret_cast<GpuScratch&>(*workspace.of_backend()); }
  static DeviceScratch on_device(Workspace& workspace, const GpuScratch& scratch) {
    adafactor::detail::Pieces pieces(workspace.on_device);
    return {workspace.plan, scratch.work.counts, pieces};
  }

  static View view_of(const DeviceScratch& device, const Plan& plan) {
    View view;
    view.leaves = device.leaves;
    view.tiles = device.tiles;
    view.sums = device.sums;
    view.places = device.places;
    view.float32 = {device.float32.columns, device.float32.cells, device.float32.tiles};
    view.float64 = {device.float64.columns, device.float64.cells, device.float64.tiles};
    view.cells = device.cells;
    view.folds = device.folds;
    view.columns = device.columns;
    view.verdict = device.verdict;
    view.leaf_squares = device.leaf_squares;
    view.places_in_verdict = device.places_in_verdict;
    view.leaf_count = static_cast<std::int32_t>(plan.leaves().size());
    view.propagates = plan.call().on_nonfinite == OnNonfinite::propagate;
    view.clips_all = plan.call().global_clipnorm.has_value();
    view.global_clipnorm = plan.call().global_clipnorm.value_or(0);
    return view;
  }

  // What the host knows of a call goes to the device: the leaves, as they lie there, with what was found so far.
  void send(Workspace& workspace, GpuScratch& scratch) const {
    const DeviceScratch device = on_device(workspace, scratch);
    std::int32_t in_verdict = 0;
    scratch.needs = {};
    double* partials = device.partials;
    for (std::size_t i = 0; i < scratch.leaves.size(); ++i) {
      scratch.leaves[i] = workspace.leaves[i];
      const LeafPlan& planned = workspace.plan.leaves()[i];
      place(scratch.leaves[i].at, workspace, device);
      if (planned.row_partials() > 0) scratch.leaves[i].at.row_partial = partials;
      if (planned.col_partials() > 0) scratch.leaves[i].at.col_partial = partials + planned.row_partials();
      partials += planned.partials();
      scratch.needs.add(scratch.leaves[i]);
      scratch.places_in_verdict[i] = workspace.leaves[i].in_verdict() ? in_verdict++ : -1;
    }
    scratch.view.verdict_count = in_verdict;
    scratch.view.loss_scale = loss_scale_;
    scratch.verdict = workspace.verdict;
    copy_in(device.leaves, scratch.leaves);
    copy_in(device.places_in_verdict, scratch.places_in_verdict);
    copy_in(device.verdict, std::span(&scratch.verdict, 1));
    copy_in(device.axes, workspace.axes);
    copy_in(device.shared, workspace.shared);
    if (loss_scale_.scale && scratch.view.leaf_count > 0) {
      runtime_.launch({.kernel = Kernel::take_scale}, scratch.view, divided_up(scratch.view.leaf_count, kThreads));
    }
  }

  // Turns what lies in the workspace into its place on the device.
  static void place(LeafArrays& at, const Workspace& workspace, const DeviceScratch& device) {
    const auto move = [](auto*& pointer, const auto* host, auto* there) {
      if (!pointer) return;
      const auto bytes = reinterpret_cast<const std::byte*>(pointer) - reinterpret_cast<const std::byte*>(host);
      pointer =
          reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(reinterpret_cast<std::byte*>(there) + bytes);
    };
    for (Walk* walk : {&at.gradient, &at.parameter, &at.parameter_out, &at.elements}) {
      move(walk->slice_axes, workspace.axes.data(), device.axes);
      move(walk->col_axes, workspace.axes.data(), device.axes);
    }
    for (void** moments : {&at.row_moment, &at.col_moment, &at.col_factor, &at.row_factor}) {
      move(*moments, workspace.moments(), device.moments);
    }
    move(at.mean_moment, workspace.moments(), device.moments);
    for (double** shared : {&at.shared, &at.row_partial, &at.col_partial}) {
      move(*shared, workspace.shared.data(), device.shared);
    }
  }

  void launch(Phase phase, const View& view, const GpuScratch& scratch) const {
    const WorkCounts& counts = scratch.work.counts;
    const Needs& needs = scratch.needs;
    switch (phase) {
      case Phase::moments:
        over_pairs(Kernel::plain_moments, counts.float32.columns, view, scratch);
        if (needs.column_moments) over(&WorkCounts::OfArithmetic::columns, Kernel::column_moments, view, counts);
        if (needs.slice_moments) over(&WorkCounts::OfArithmetic::cells, Kernel::slice_moments, view, counts);
        if (needs.cell_squares) over(&WorkCounts::OfArithmetic::cells, Kernel::cell_squares, view, counts);
        over(&WorkCounts::OfArithmetic::tiles, Kernel::tile_moments, view, counts);
        return decide(Kernel::find_norm, view);
      case Phase::means:
        return over(&WorkCounts::OfArithmetic::tiles, Kernel::means, view, counts);
      case Phase::verdict:
        return runtime_.launch({.kernel = Kernel::find_verdict}, view, 1);
      case Phase::factors:
        over(&WorkCounts::OfArithmetic::tiles, Kernel::factors, view, counts);
        return decide(Kernel::find_clamp, view);
      case Phase::rms:
        over_pairs(Kernel::plain_rms, counts.float32.cells, view, scratch);
        if (needs.cell_rms) over(&WorkCounts::OfArithmetic::cells, Kernel::cell_rms, view, counts);
        over(&WorkCounts::OfArithmetic::tiles, Kernel::tile_rms, view, counts);
        decide(Kernel::find_wide, view);
        over(&WorkCounts::OfArithmetic::cells, Kernel::cell_rms_again, view, counts, {DType::float32});
        over(&WorkCounts::OfArithmetic::tiles, Kernel::tile_rms_again, view, counts, {DType::float32});
        return decide(Kernel::find_step, view);
      case Phase::apply:
        over_pairs(Kernel::plain_apply, counts.float32.cells, view, scratch);
        over(&WorkCounts::OfArithmetic::cells, Kernel::apply, view, counts);
        return over(&WorkCounts::OfArithmetic::tiles, Kernel::commit, view, counts);
    }
  }

  // A block of threads for each piece of one of the lists, of each arithmetic; U leaves float alone.
  void over(std::int64_t WorkCounts::OfArithmetic::* list, Kernel kernel, const View& view, const WorkCounts& counts,
            std::initializer_list<DType> arithmetics = {DType::float32, DType::float64}) const {
    for (const DType arithmetic : arithmetics) {
      const std::int64_t blocks = counts.of(arithmetic).*list;
      if (blocks > 0) runtime_.launch({.kernel = kernel, .arithmetic = arithmetic}, view, blocks);
    }
  }
  // The same for each type, or pair of types, that some leaf has.
  void over_pairs(Kernel kernel, std::int64_t blocks, const View& view, const GpuScratch& scratch) const {
    if (blocks == 0) return;
    for (const DType gradient : kDTypes) {
      const auto& pairs = scratch.needs.in_place[static_cast<std::size_t>(gradient)];
      if (kernel == Kernel::plain_moments) {
        if (std::ranges::find(pairs, true) == std::end(pairs)) continue;
        runtime_.launch({.kernel = kernel, .gradient = gradient}, view, blocks);
        continue;
      }
      for (const DType parameter : kDTypes) {
        if (!pairs[static_cast<std::size_t>(parameter)]) continue;
        runtime_.launch({.kernel = kernel, .gradient = gradient, .parameter = parameter}, view, blocks);
      }
    }
  }
  // A team for each leaf.
  void decide(Kernel kernel, const View& view) const {
    if (view.leaf_count > 0) runtime_.launch({.kernel = kernel}, view, divided_up(view.leaf_count, kTeams));
  }

  template <class T, class From>
  void copy_in(T* to, const From& from) const {
    runtime_.copy(to, from.data(), static_cast<std::int64_t>(from.size_bytes()));
  }
  template <class T>
  void copy_out(std::span<T> to, const T* from) const {
    runtime_.copy(to.data(), from, static_cast<std::int64_t>(to.size_bytes()));
  }
  void copy_lists(const DeviceScratch::Lists& device, const HostWork::OfArithmetic& work) const {
    copy_in(device.columns, work.columns);
    copy_in(device.cells, work.cells);
    copy_in(device.tiles, work.tiles);
  }

  Runtime& runtime_;
  LossScale loss_scale_;
};

}}  // namespace adafactor::cuda::ADAFACTOR_ABI
