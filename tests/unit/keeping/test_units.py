"""What counts only as a whole of what trainers write, and what file by file."""

from __future__ import annotations

import pytest

from colabkit.keeping.units import WHOLE, by_unit, patterns_by

# By who writes it: the paths of one checkpoint, and the folder that is whole or not there.
FOLDERS = {
    "orbax": (
        ["ckpt/100/_CHECKPOINT_METADATA", "ckpt/100/default/d/0a1b", "ckpt/100/metrics/metrics"],
        "ckpt/100",
    ),
    "orbax with zeros": (
        ["ckpt/0001/_CHECKPOINT_METADATA", "ckpt/0001/state/_METADATA"],
        "ckpt/0001",
    ),
    "deepspeed": (
        [
            "out/global_step100/mp_rank_00_model_states.pt",
            "out/global_step100/zero_optim_states.pt",
        ],
        "out/global_step100",
    ),
    "deepspeed with a tag": (
        ["out/my tag/mp_rank_00_model_states.pt", "out/my tag/zero_pp_rank_0_optim_states.pt"],
        "out/my tag",
    ),
    "megatron": (["out/iter_0000100/mp_rank_00/model_optim_rng.pt"], "out/iter_0000100"),
    "paddleseg": (
        ["output/iter_1000/model.pdparams", "output/iter_1000/model.pdopt"],
        "output/iter_1000",
    ),
    "paddle's best": (
        ["out/best_model/model.pdparams", "out/best_model/model.pdopt"],
        "out/best_model",
    ),
    "stable baselines": (
        ["logs/best_model/best_model.zip", "logs/best_model/vec.pkl"],
        "logs/best_model",
    ),
    "diffusers": (
        ["out/checkpoint-5/unet/config.json", "out/checkpoint-5/optimizer.bin"],
        "out/checkpoint-5",
    ),
    "a pipeline": (
        ["out/cats-000001/model_index.json", "out/cats-000001/unet/w.bin"],
        "out/cats-000001",
    ),
    "kohya": (
        ["out/cats-step00000500-state/optimizer.bin", "out/cats-step00000500-state/a.json"],
        "out/cats-step00000500-state",
    ),
    "unsloth": (
        ["final_model/adapter_config.json", "final_model/adapter_model.safetensors"],
        "final_model",
    ),
    "axolotl": (
        ["out/checkpoint-20/trainer_state.json", "out/checkpoint-20/rng_state.pth"],
        "out/checkpoint-20",
    ),
    "torchtune": (
        ["out/epoch_0/ft-model-00001-of-00002.safetensors", "out/epoch_0/config.json"],
        "out/epoch_0",
    ),
    "torchtitan": (
        ["out/checkpoint/step-100/.metadata", "out/checkpoint/step-100/__0_0.distcp"],
        "out/checkpoint/step-100",
    ),
    "colossal": (
        ["out/epoch0-global_step500/model/a.safetensors", "out/epoch0-global_step500/rng.json"],
        "out/epoch0-global_step500",
    ),
    "nemo": (
        ["nemo/model--val_loss=5.1-step=100/weights/__0_0.distcp"],
        "nemo/model--val_loss=5.1-step=100",
    ),
    "spacy": (["out/model-best/meta.json", "out/model-best/ner/model"], "out/model-best"),
    "a SavedModel": (
        ["export/cats/saved_model.pb", "export/cats/variables/variables.index"],
        "export/cats",
    ),
    "BackupAndRestore": (["backup/latest.weights.h5", "backup/training_metadata.json"], "backup"),
    "sentence transformers": (["out/500/model.safetensors", "out/500/config.json"], "out/500"),
    "ray": (["exp/trial_1/checkpoint_000005/state.pkl"], "exp/trial_1/checkpoint_000005"),
    "a loop's own": (["out/epoch3/model.pt", "out/epoch3/opt.pt"], "out/epoch3"),
    "by hand": (["out/model_epoch_3/w.pth", "out/model_epoch_3/notes.txt"], "out/model_epoch_3"),
    "with its loss": (
        ["m/Epoch=3, loss=0.2/w.pth", "m/Epoch=3, loss=0.2/o.pth"],
        "m/Epoch=3, loss=0.2",
    ),
    "steps behind": (["out/500_steps/policy.pth", "out/500_steps/buffer.pkl"], "out/500_steps"),
    "the last": (["out/last/model.safetensors", "out/last/optimizer.pt"], "out/last"),
    "the best": (["out/best/weights/a.npz", "out/best/args.json"], "out/best"),
}
# File by file: each is whole by itself, or is written without end.
SINGLE = {
    "yolo": ["cats/weights/last.pt", "cats/weights/best.pt", "cats/results.csv"],
    "nnU-Net": ["fold_0/checkpoint_latest.pth", "fold_0/progress.png", "fold_0/training_log.txt"],
    "lightning": ["lightning_logs/version_0/checkpoints/epoch=3-step=9.ckpt"],
    "fairseq": ["checkpoints/checkpoint_last.pt", "checkpoints/checkpoint1.pt"],
    "mmengine": [
        "work/epoch_3.pth",
        "work/last_checkpoint",
        "work/20240101_120000/vis_data/s.json",
    ],
    "detectron2": ["out/model_0004999.pth", "out/last_checkpoint", "out/metrics.json"],
    "OpenCLIP": ["logs/cats/checkpoints/epoch_3.pt", "logs/cats/out.log", "logs/cats/params.txt"],
    "coqui": ["run-May-1/checkpoint_1000.pth", "run-May-1/best_model.pth"],
    "hydra": ["multirun/0/model.pt", "multirun/0/train.log", "multirun/0/.hydra/config.yaml"],
    "hydra without a log": ["multirun/1/model.pt", "multirun/1/.hydra/config.yaml"],
    "a run called so": ["final/model.pt", "final/events.out.tfevents.1.host"],
    "images": ["samples/3/cat.png", "features/3/cat.npy"],
    "a fold": ["fold_1/model.pt", "seed42/model.pt", "exp1/last.pt", "PPO_1/model.zip"],
    "names with such words": [
        "steps_per_hour/a.pt",
        "model/a.pt",
        "weights/best.pt",
        "lastly/a.pt",
    ],
}


@pytest.mark.parametrize("who", FOLDERS)
def test_the_folder_of_a_checkpoint_is_one_whatever_is_seen_first(who):
    paths, folder = FOLDERS[who]
    for order in (paths, paths[::-1]):
        patterns = WHOLE
        for path in order:
            patterns = patterns_by([path], patterns)
        assert list(by_unit(dict.fromkeys(paths), patterns)) == [folder]
        assert set(by_unit(dict.fromkeys(paths), patterns_by(order, WHOLE))) == {folder}


TOGETHER = {
    "shards": ["out/a-00001-of-00002.bin", "out/a-00002-of-00002.bin", "out/a.bin.index.json"],
    "shards from 0": ["out/a-00000-of-00002.bin", "out/a-00001-of-00002.bin"],
    "tensorflow": ["tf/ckpt-3.index", "tf/ckpt-3.data-00000-of-00001"],
    "paddle": ["out/latest.pdparams", "out/latest.pdopt", "out/latest.states"],
}


@pytest.mark.parametrize("who", TOGETHER)
def test_files_that_are_one_checkpoint_by_their_names_are_whole_or_not_there(who, machine):
    paths = TOGETHER[who]
    (unit,) = by_unit(dict.fromkeys(paths), WHOLE)
    assert unit.endswith(".*")
    kept = machine.keep()
    for path in (*paths, "log.csv"):
        machine.put(path, "{}" if path.endswith(".json") else f"1 {path}")
    assert kept.latest(paths[0].rpartition("/")[2]) == str(machine.folder / paths[0])
    kept.flush()
    for path in (paths[0], "log.csv"):  # and dies while it writes the next
        machine.put(path, f"2 {path}")
    with (machine.folder / paths[1]).open("wb") as half:
        half.write(b"2")
        half.flush()
        assert kept.latest(paths[0]) is None
        machine.rounds(kept, 3)
        machine.kill()
    machine.keep()
    assert (machine.folder / "log.csv").read_text() == "2 log.csv"
    for path in paths[:2]:
        assert (machine.folder / path).read_text() == f"1 {path}"
    machine.kept[0].end()
    (machine.folder / paths[1]).unlink()
    machine.put(paths[0], "of another")
    again = machine.keep()
    assert (machine.folder / paths[1]).read_text() == f"1 {paths[1]}"
    assert again.latest(paths[0]) == str(machine.folder / paths[0])


@pytest.mark.parametrize("who", SINGLE)
def test_the_folder_of_a_run_is_none(who):
    paths = SINGLE[who]
    assert list(by_unit(dict.fromkeys(paths), patterns_by(paths, WHOLE))) == paths


@pytest.mark.parametrize(
    "run", ["checkpoints/cats", "last", "run/best_model", "epoch3", "multirun/0"]
)
@pytest.mark.parametrize("one", ["checkpoint-5", "global_step5", "step_5", "epoch=3.ckpt"])
def test_a_folder_with_numbered_ones_in_it_is_a_runs(run, one):
    paths = [f"{run}/model.pt", f"{run}/{one}/model.pt", f"{run}/{one}/rank_0/rng.pt"]
    for order in (paths, paths[::-1]):
        units = by_unit(dict.fromkeys(order), patterns_by(order, WHOLE))
        assert set(units) == {f"{run}/model.pt", f"{run}/{one}"}


def test_thousands_of_runs_are_told_apart_one_by_one():
    paths = [f"a/{number}/{name}" for number in range(3_000) for name in ("w.pt", "run.log", "b")]
    assert len(by_unit(dict.fromkeys(paths), patterns_by(paths, WHOLE))) == len(paths)
