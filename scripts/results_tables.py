"""Write benchmarks/RESULTS.md, benchmarks/PARITY.md and the results table of README.md from results/*.json.

.venv/bin/python scripts/results_tables.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from vitreous.evaluation.spread import Spread, spread

FOLDER = Path(__file__).parents[1] / "benchmarks"
README = FOLDER.parent / "README.md"


def load(name: str) -> dict[str, Any] | None:
    path = FOLDER / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def percent(found: dict[str, float]) -> str:
    return f"{100 * found['value']:.1f} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


def budgets(facts: dict[str, Any]) -> list[str]:
    return [
        f"`vitreous train SET --time T`, from the start of Python to the written report, one training at a time on one core "
        f"(`benchmarks/budgets.py`; {machine(facts)}):",
        "",
        "| set | budget | took, s | of the budget, % | steps taken of those planned | set aside for the end, s |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row['set']} | {row['budget']} | {row['seconds']:.1f} | {100 * row['share']:.1f} | {row['steps_taken']:,} of "
            f"{row['steps_planned']:,} | {row['set_aside']} |"
            for row in facts["runs"]
        ),
    ]


def coverage(facts: dict[str, Any]) -> list[str]:
    cases = facts["coverage"]
    return [
        f"How often 95 % intervals hold the truth in {facts['simulations']:,} simulated test parts of 160 or 180 images, %; groups are of 1 to 7 "
        f"images (`benchmarks/coverage.py`; {machine(facts)}):",
        "",
        f"| metric | {' | '.join(cases)} |",
        "| --- |" + " --- |" * len(cases),
        *(
            f"| {name.replace('_', ' ')} | {' | '.join(f'{100 * case[name]:.1f}' for case in cases.values())} |"
            for name in next(iter(cases.values()))
        ),
    ]


def kill(facts: dict[str, Any]) -> list[str]:
    return [
        f"`kill -9` in {facts['trials']} trainings, {facts['kills']} times, {facts['kills_by']['touch']} of them at a touch of the disk drawn at "
        f"random (`benchmarks/kill.py`; {machine(facts)}): {len(facts['failed'])} failed. A trial fails where the run does not go on "
        "from its newest finished state, ends with other weights than an undisturbed one, or leaves a file, lock or process.",
    ]


def probe(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"The logistic regression of a probe, {facts['images']:,} images of {facts['features']} features, {facts['classes']} classes, "
        f"{facts['threads']} thread, to the same optimum (`benchmarks/probe.py`; {machine(facts)}):",
        "",
        "| strength | solver | time, ms | times ours | loss above the least |",
        "| --- | --- | --- | --- | --- |",
    ]
    for title, rows in facts.items():
        if not title.startswith("strength "):
            continue
        own = rows["ours"]["milliseconds"]["median"]
        lines += [
            f"| {title.removeprefix('strength ')} | {name} | {row['milliseconds']['median']:,.0f} | "
            f"{row['milliseconds']['median'] / own:.1f} | {row['above_least']:.0e} |"
            for name, row in rows.items()
        ]
    return lines


def machine(facts: dict[str, Any]) -> str:
    return f"{facts['processor']}, {facts['cores']} cores, torch {facts['versions']['torch']}, {facts['date']}"


def quickstart(facts: dict[str, Any]) -> list[str]:
    seeds = len(facts["seeds"])
    lines = [
        f"`vitreous quickstart`, {seeds} seeds, each with its own split (`benchmarks/quickstart.py`; {machine(facts)}):",
        "",
        "| model | parameters | MACs | test accuracy, median (worst to best), % | training, s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in facts["summary"].items():
        entry, accuracy, seconds = facts["seeds"][0]["models"][name], found["accuracy"], found["train_seconds"]
        lines.append(
            f"| {name} | {entry['parameters'] / 1e6:.2f} M | {entry['macs'] / 1e6:.1f} M | {100 * accuracy['median']:.1f} "
            f"({100 * accuracy['min']:.1f} to {100 * accuracy['max']:.1f}) | {seconds['median']:.0f} |"
        )
    total = facts["total_seconds"]
    lines += ["", f"The whole tour took {total['median']:.0f} s ({total['min']:.0f} to {total['max']:.0f})."]
    return lines


def seed_rows(facts: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    """A line for each seed, with the accuracy of each name, and one for their mean, whose interval is that of other seeds."""
    rows = [
        f"| {seed} | {' | '.join(percent(row[name]) for name in names)} | {row.get('wall_seconds', row.get('seconds')):.0f} |"
        for seed, row in sorted(facts["seeds"].items())
    ]
    means = (spread([row[name]["value"] for row in facts["seeds"].values()]) for name in names)
    return [*rows, f"| mean | {' | '.join(map(mean_percent, means))} | |"]


def mean_percent(found: Spread) -> str:
    if found.mean is None or found.low is None or found.high is None:  # of one seed
        return "-"
    return f"{100 * found.mean:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def cifar10(facts: dict[str, Any]) -> list[str]:
    row = next(iter(facts["seeds"].values()))
    return [
        f"`vitreous train cifar10 --time {row['budget']}`, no other argument, from random weights, everything included, nothing "
        f"remembered from before (`benchmarks/cifar10.py`; {machine(facts)}): {row['model']}, {row['parameters'] / 1e6:.2f} M "
        "parameters, all 10,000 test images, 95 % intervals:",
        "",
        "| seed | accuracy, % | wall time, s |",
        "| --- | --- | --- |",
        *seed_rows(facts, ("accuracy",)),
    ]


def digits_folds(facts: dict[str, Any]) -> list[str]:
    row = next(iter(facts["seeds"].values()))
    return [
        f"scikit-learn's digits, five folds, each the test part once; `vitreous train FOLD --time {row['budget']}`, from random "
        "weights, two at a time on a core each, against a support vector machine and nearest neighbours tuned within the other folds "
        f"(`benchmarks/digits_folds.py`; {machine(facts)}); 95 % intervals over all 1,797 images:",
        "",
        "| seed | vitreous, % | SVC, % | neighbours, % | all five trainings, s |",
        "| --- | --- | --- | --- | --- |",
        *seed_rows(facts, ("vitreous", "SVC", "neighbours")),
    ]


def against_timm(facts: dict[str, Any]) -> list[str]:
    def cell(found: dict[str, float]) -> str:
        return f"{100 * found['mean']:.1f} ± {196 * found['error']:.1f}"

    budget = next(iter(facts["sets"].values()))["budget"]
    lines = [
        f"From random weights in the same minutes: `vitreous train SET --time {budget}`, or as long as the table says, against timm's `train.py` defaults (ResNet-50, SGD), "
        f"each pinned to one core, both at work (`benchmarks/against_timm.py`; {machine(facts)}, timm {facts['versions']['timm']}). "
        "timm's time leaves out its start and its test, and it trains on the validation images too. In such a time its ResNet-50 takes "
        "a handful of steps on a CPU: this says what its defaults reach here, not what its model could. Where balanced accuracy is that of "
        "chance, nothing was learned. Mean over seeds ± 1.96 standard errors, seeds and test images both counted:",
        "",
        "| set | budget | trainer | px | steps | seeds | accuracy, % | balanced accuracy, % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in facts["sets"].items():
        for side, found in row.items():
            if side == "budget":
                continue
            seeds, mean = found["seeds"], found["mean"]
            lines.append(
                f"| {name} | {row['budget']} | {side} | {seeds[0]['size']} | {seeds[0]['steps']} | {len(seeds)} | {cell(mean['accuracy'])} | "
                f"{cell(mean['balanced_accuracy'])} |"
            )
    return lines


def transfer(facts: dict[str, Any]) -> list[str]:
    first = next(iter(facts["sets"].values()))
    seeds = len(first["ways"]["probe"])
    lines = [
        f"Ways to use trained weights, here those of vit_micro after twenty minutes of CIFAR-10 on one core (82.7 %), at {first['size']} px and "
        f"{first['epochs']} epochs, every other setting as it is by default, one core (`benchmarks/transfer.py`; {machine(facts)}). Mean of "
        f"{seeds} seeds (least to greatest):",
        "",
        "| set | way | accuracy, % | wall time, s |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in facts["sets"].items():
        for way, rows in row["ways"].items():
            accuracy, seconds = ([each[key] for each in rows] for key in ("accuracy", "wall_seconds"))
            lines.append(
                f"| {name} | {way} | {100 * sum(accuracy) / len(rows):.1f} ({100 * min(accuracy):.1f} to {100 * max(accuracy):.1f}) | "
                f"{sum(seconds) / len(rows):.0f} |"
            )
    return lines


def pretraining(facts: dict[str, Any]) -> list[str]:
    rows = facts["runs"]
    steps = {row["way"]: row["steps"] for row in rows}
    return [
        f"Masked autoencoding on the very images that are labelled: {facts['images']:,} of CIFAR-10, {facts['model']}, an equal number of steps in "
        f"all for the first and the last row (`benchmarks/pretraining.py`; {machine(facts)}):",
        "",
        "| way | steps with labels | test accuracy, % (deviation between seeds) |",
        "| --- | --- | --- |",
        *(
            f"| {way} | {steps[way]} | {100 * found['mean']:.1f} ({100 * found['deviation']:.1f}, {found['seeds']} seeds) |"
            for way, found in facts["summary"].items()
        ),
    ]


def ood(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"Does a model notice images of another kind? AUROC of each score, images of another set against its own test images; flagged: share that "
        f"is stranger than every validation image (`benchmarks/ood.py`; {machine(facts)}). `ood` is the most unusual of distance, looks and "
        "energy, as predictions give it.",
        "",
        "| trained on | asked about | distance | energy | looks | 1 - score | **ood** | flagged | own images flagged |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run, rows in facts["runs"].items():
        for name, row in rows.items():
            scores = " | ".join(f"{row[key]:.3f}" for key in ("distance", "energy", "looks", "1 - score", "ood"))
            lines.append(
                f"| {run} | {name} | {scores} | {100 * row['flagged']:.0f} % | {100 * row['own flagged']:.1f} % |"
            )
    return lines


def cpu_paths(facts: dict[str, Any]) -> list[str]:
    def cell(found: dict[str, float]) -> str:
        return f"{found['median']:.1f} ({found['min']:.1f} to {found['max']:.1f})"

    product = facts["matrix_product_ms"]
    lines = [
        f"Ways to compute on a CPU, interleaved in one process, one thread, processor time (`benchmarks/attention_paths.py`; {machine(facts)}). "
        "Milliseconds, median (least to greatest):",
        "",
        "| work | default or fused | as vitreous does it | ratio of medians |",
        "| --- | --- | --- | --- |",
        f"| fp32 product 1576 x 768 x 3072 | {cell(product['default'])} | {cell(product['onednn'])} | "
        f"{product['default']['median'] / product['onednn']['median']:.2f} |",
    ]
    for tokens, found in facts["attention_ms"].items():
        ratio = found["fused"]["median"] / found["plain"]["median"]
        lines.append(
            f"| attention forward and backward, {tokens} tokens | {cell(found['fused'])} | {cell(found['plain'])} | {ratio:.2f} |"
        )
    lines += ["", "A training step of vit_micro with two threads, by how OpenMP's threads wait, ms:", ""]
    names = list(facts["step_ms"]["alone"])
    lines += [f"| | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for place, times in facts["step_ms"].items():
        lines.append(f"| {place} | " + " | ".join(f"{times[name]:.0f}" for name in names) + " |")
    return lines


def model_speed(facts: dict[str, Any]) -> list[str]:
    names = list(next(iter(facts["work"].values())))
    clock = "processor time" if facts["threads"] == 1 else "wall time"
    lines = [
        f"One architecture in five libraries, interleaved in one process, {facts['threads']} thread(s), {clock} "
        f"(`benchmarks/model_speed.py`; {machine(facts)}, timm {facts['versions']['timm']}). Speed as a multiple of timm's, by medians; "
        "milliseconds of timm: median (least to greatest). `ours` is how our verbs run the model: "
        f"{facts['path']}",
        "",
        f"| work | timm, ms | {' | '.join(name for name in names if name != 'timm')} |",
        "| --- | --- |" + " --- |" * (len(names) - 1),
    ]
    for work, found in facts["work"].items():
        at = found["timm"]["ms"]
        cells = [f"{found[name]['times_timm']:.2f}" if name in found else "" for name in names if name != "timm"]
        lines.append(f"| {work} | {at['median']:.0f} ({at['min']:.0f} to {at['max']:.0f}) | {' | '.join(cells)} |")
    return lines


def training_speed(facts: dict[str, Any]) -> list[str]:
    names = list(next(iter(facts["work"].values()))["steps"])
    clock = "processor time" if facts["threads"] == 1 else "wall time"
    peaks = facts["gflops"]
    lines = [
        f"One architecture, interleaved in one process, {facts['threads']} thread(s), {clock} (`benchmarks/training_speed.py`; "
        f"{machine(facts)}, timm {facts['versions']['timm']}). timm, transformers and vit-pytorch: a plain PyTorch loop, AdamW at its "
        "defaults. Ours: the step of `vitreous train`, with clipping, fused AdamW and averaged weights. Speed as a multiple of timm's in "
        "fp32, by medians; milliseconds of timm: median (least to greatest). The best product of this size here: "
        f"{', '.join(f'{value:.0f} GFLOP/s ({name})' for name, value in peaks.items())}. Share: what `ours, bf16` does of the best bf16 "
        "product, counting 6 FLOP for each multiply-add of a forward pass.",
        "",
        f"| work | timm, ms | {' | '.join(name for name in names if name != 'timm')} | share |",
        "| --- | --- |" + " --- |" * len(names),
    ]
    for work, found in facts["work"].items():
        steps = found["steps"]
        at = steps["timm"]["ms"]
        cells = [f"{steps[name]['times_timm']:.2f}" for name in names if name != "timm"]
        share = 6 * found["macs"] * steps["ours, bf16"]["images_per_s"] / 1e9 / peaks["bf16"]
        lines.append(
            f"| {work}, batch {found['batch']} | {at['median']:.0f} ({at['min']:.0f} to {at['max']:.0f}) | {' | '.join(cells)} | "
            f"{100 * share:.0f} % |"
        )
    for work, found in facts["curves"].items():
        last = ", ".join(f"{value:.3f} ({name})" for name, value in found["last_ten"].items())
        apart = ", ".join(
            f"{value:.3f} ({name})" for name, value in found["largest_difference_of_means_of_ten"].items()
        )
        lines += [
            "",
            f"Losses of {found['steps']} steps ({work}, scikit-learn's digits, same weights and batches, neither clipping nor weight "
            f"decay): mean of the last ten {last}; means of ten differ from timm's by at most {apart}.",
        ]
    return lines


def cpu_inference(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"Engines against timm's eager forward pass with the same weights, interleaved in one process "
        f"(`benchmarks/cpu_inference.py`; {machine(facts)}). Difference: of logits, relative to the largest. The best matrix product "
        f"of one core here: {', '.join(f'{value:.0f} GFLOP/s ({name})' for name, value in facts['one_core_gflops'].items())}; "
        "a speed-up over torch's default library cannot be larger than their ratio.",
    ]
    for threads, found in facts["threads"].items():
        lines += [
            "",
            f"{threads} thread(s), {found['clock']} time:",
            "",
            "| model | batch | engine | ms an image, median (least to greatest) | times timm | share of best product | difference |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for model, result in found["models"].items():
            for batch, candidates in result["batches"].items():
                for engine, value in candidates.items():
                    at = value["ms_per_image"]
                    lines.append(
                        f"| {model} | {batch} | {engine} | {at['median']:.1f} ({at['min']:.1f} to {at['max']:.1f}) | "
                        f"{value['times_timm']:.2f} | {100 * value['share_of_peak']:.0f} % | {value['relative_difference']:.0e} |"
                    )
    return lines


def input_pipeline(facts: dict[str, Any]) -> list[str]:
    names = list(next(iter(facts["sizes"].values()))["candidates"])
    lines = [
        "From a JPEG file to a normalised float32 array (3, 224, 224), shorter side to 256 and centre crop, bilinear; interleaved in one "
        f"process, {facts['threads']} thread, processor time (`benchmarks/input_pipeline.py`; {machine(facts)}, timm "
        f"{facts['versions']['timm']}). {facts['photographs']} photographs, enlarged with detail. Speed as a multiple of torchvision's "
        "`ImageFolder` and `Compose`, by medians; its milliseconds: median (least to greatest). Grey levels (of 255): what reduced "
        "decoding changes, mean over all images / mean of the worst image / largest. Each size in a process of its own; `after 4000 x 3000`: "
        "in one that has decoded such an image, malloc keeps memory that it otherwise asks for with each image, from which full "
        "decoding profits. Where the sides do not come out even, torchvision rounds "
        "its crop to whole pixels and so shifts the picture by up to half a one.",
        "",
        f"| photographs | kB | torchvision, ms | {' | '.join(names[1:])} | decoded at | grey levels |",
        "| --- | --- | --- |" + " --- |" * (len(names) + 1),
    ]
    for size, found in facts["sizes"].items():
        at = found["candidates"]["torchvision"]["ms_per_image"]
        cells = [f"{found['candidates'][name]['times_torchvision']:.2f}" for name in names[1:]]
        levels = found["candidates"]["vitreous"]["from_full"]
        lines.append(
            f"| {size.replace('x', ' x ').replace('+', ' after ')} | {found['kilobytes']:.0f} | {at['median']:.1f} ({at['min']:.1f} to {at['max']:.1f}) | "
            f"{' | '.join(cells)} | {'1' if found['reduced_by'] == 1 else '1/' + str(found['reduced_by'])} | "
            f"{levels['mean']:.2f} / {levels['worst_image']:.2f} / {levels['max']:.0f} |"
        )
    return lines


def parity(facts: dict[str, Any]) -> str:
    """The table of every plain ViT, as a page of its own."""
    limit = facts["tolerance"]

    def passes(row: dict[str, Any]) -> bool:
        return row["difference"] <= limit and (row["difference_back"] or 0) <= limit

    rows = facts["timm"] + facts["others"]
    lines = [
        "# Parity",
        "",
        f"Written by `scripts/results_tables.py` from `benchmarks/parity.py` ({machine(facts)}, timm {facts['versions']['timm']}). "
        "Random weights, also where training starts from zero, one or 1e-5; float32; the larger of the differences of tokens and "
        f"logits, relative to the largest number of the reference. Pass is at most {limit:.0e}, there and, for timm, back.",
        "",
        f"{sum(map(passes, rows))} of {len(rows)} pass. `5 of 24` blocks: large models are built with fewer, to keep memory and time within bounds.",
        "",
        "| name | image | tokens | blocks | difference | pass |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        built, whole = row["blocks"]
        lines.append(
            f"| {row['name']} | {row['image'][0]} x {row['image'][1]} | {row['tokens']} | "
            f"{built if built == whole else f'{built} of {whole}'} | {row['difference']:.1e} | {'yes' if passes(row) else '**no**'} |"
        )
    lines += ["", "## Left out", "", "| name in timm | why it is not a plain ViT |", "| --- | --- |"]
    lines += [f"| {name} | {why.strip()} |" for name, why in facts["left_out"].items()]
    return "\n".join(lines) + "\n"


def summary(facts: dict[str, Any]) -> str:
    """The parity table in one sentence, for the front page."""
    rows = facts["timm"] + facts["others"]
    passed = sum(row["difference"] <= facts["tolerance"] for row in rows)
    return (
        f"The same weights, the same numbers: {passed} of {len(rows)} models agree within {facts['tolerance']:.0e} of the largest value, "
        f"among them all {len(facts['timm'])} plain Vision Transformers that timm {facts['versions']['timm']} lists "
        "([table](benchmarks/PARITY.md), `benchmarks/parity.py`)."
    )


def main() -> None:
    front: list[str] = []
    found = load("parity")
    if found is not None:
        (FOLDER / "PARITY.md").write_text(parity(found), encoding="utf-8")
        front += [summary(found), ""]
    sections: list[str] = []
    for name, title, write in (
        ("quickstart", "Digits", quickstart),
        ("against_timm", "Six data sets, against timm's training script", against_timm),
        ("cifar10", "CIFAR-10 in ten minutes", cifar10),
        ("digits_folds", "Digits in five folds", digits_folds),
        ("transfer", "From trained weights", transfer),
        ("pretraining", "Pretraining without labels", pretraining),
        ("budgets", "Promises of time", budgets),
        ("kill", "Killed at random", kill),
        ("coverage", "Intervals", coverage),
        ("probe_20000x384", "A probe's classifier", probe),
        ("ood", "Images of another kind", ood),
        ("model_speed", "The model against other libraries", model_speed),
        ("training_speed", "Training steps", training_speed),
        ("training_speed_2_threads", "Training steps, two threads", training_speed),
        ("cpu_inference", "Engines on a CPU", cpu_inference),
        ("attention_paths", "Computing on a CPU", cpu_paths),
        ("input_pipeline", "Reading images", input_pipeline),
    ):
        facts = load(name)
        if facts is None:
            continue
        text = write(facts)
        sections += [f"## {title}", "", *text, ""]
        if facts.get("note"):
            sections += [facts["note"], ""]
            text = [*text, "", facts["note"]]
        if name in ("quickstart", "against_timm", "cifar10", "digits_folds"):
            front += [*text, ""]
    head = "# Results\n\nWritten by `scripts/results_tables.py` from `benchmarks/results/`. Machines are shared: read ratios and intervals.\n\n"
    (FOLDER / "RESULTS.md").write_text(head + "\n".join(sections).rstrip() + "\n", encoding="utf-8")
    block = "<!-- results: begin -->\n" + "\n".join(front).rstrip() + "\n<!-- results: end -->"
    readme = README.read_text(encoding="utf-8")
    README.write_text(
        re.sub(r"<!-- results: begin -->.*<!-- results: end -->", lambda _: block, readme, flags=re.S), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
