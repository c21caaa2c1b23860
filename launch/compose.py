"""Hydra composes, pydantic validates: overrides -> TrainConfig or EvaluateConfig, and every fault is one line.

config = compose_run(["experiment=smoke", "run.steps=3"])
"""

import difflib
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from launch.faults import ConfigFaults, choice_fault, known_keys, nearest, unknown_key, validation_faults
from rewards.errors import ConfigError
from rl import processor
from rl.compare_config import AdviseConfig, CompareConfig
from rl.config import EvaluateConfig, PretrainConfig, TrainConfig, config_of_run, with_later_keys

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
# Hydra takes `task=...` for the group configs/task, whose files are not Hydra's: the value travels under this key.
TASK_KEY = "_task"
# Keys that a group's file sets together with values that fit it.
GROUP_KINDS = ("docs.kind", "method.kind", "launch.kind")

# run.name is made from the task, which may be a path.
OmegaConf.register_new_resolver("stem", lambda path: Path(str(path)).stem, replace=True)
# The default of model.dtype.
OmegaConf.register_new_resolver(
    "fast_dtype", lambda: "bfloat16" if processor.has_bfloat16() else "float32", replace=True
)

# What `offramp compare` hands on to its jobs.
ADDED = ("train.", "evaluate.", "recipes.")

Config = TypeVar("Config", bound=BaseModel)


def compose_run(overrides: Sequence[str], config_dir: str | None = None) -> TrainConfig:
    """The training run that `offramp train OVERRIDES` describes. Raises ConfigFaults.

    A first override that ends in .json is the config.json of a run to repeat.
    """
    if overrides and overrides[0].endswith(".json") and "=" not in overrides[0]:
        return rerun(Path(overrides[0]), overrides[1:])
    return finish(compose_raw("train", overrides, TrainConfig, config_dir), TrainConfig)


def compose_evaluate(overrides: Sequence[str], config_dir: str | None = None) -> EvaluateConfig:
    """The evaluation that `offramp evaluate OVERRIDES` describes. Raises ConfigFaults."""
    return finish(compose_raw("evaluate", overrides, EvaluateConfig, config_dir), EvaluateConfig)


def compose_pretrain(overrides: Sequence[str], config_dir: str | None = None) -> PretrainConfig:
    """The pre-training that `offramp pretrain OVERRIDES` describes. Raises ConfigFaults."""
    return finish(compose_raw("pretrain", overrides, PretrainConfig, config_dir), PretrainConfig)


def compose_compare(overrides: Sequence[str], config_dir: str | None = None) -> CompareConfig:
    """The comparison that `offramp compare OVERRIDES` describes; methods, seeds and documents take Hydra's sweeps
    (a,b or range(0,3)) as they are. train.KEY=VALUE, evaluate.KEY=VALUE and recipes.METHOD.KEY=VALUE add an override
    for all jobs, for their evaluations, and for one method. Raises ConfigFaults."""
    words = [override for override in overrides if not override.startswith(ADDED)]
    config = compose_raw("compare", [swept(word) for word in words], CompareConfig, config_dir)
    with open_dict(config):
        for override in overrides:
            section, _, rest = override.partition(".")
            if override.startswith(("train.", "evaluate.")):
                config[section] = [*config[section], rest]
            elif override.startswith("recipes."):
                method, _, rest = rest.partition(".")
                config.recipes[method] = [*config.recipes.get(method, ()), rest]
    return finish(config, CompareConfig)


def compose_advise(overrides: Sequence[str], config_dir: str | None = None) -> AdviseConfig:
    """The workload that `offramp advise OVERRIDES` describes. Raises ConfigFaults."""
    return finish(compose_raw("advise", overrides, AdviseConfig, config_dir), AdviseConfig)


def choices(group: str, config_dir: str | None = None) -> list[str]:
    """The files of a group, here and in the user's own folder: method -> [dapo, distill, ...]."""
    folders = [CONFIGS, *([Path(config_dir)] if config_dir else [])]
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def swept(override: str) -> str:
    """methods=a,b as methods=[a,b], by Hydra's own grammar of sweeps; documents=all as documents=[null]."""
    key, _, value = override.partition("=")
    if key not in ("methods", "seeds", "documents") or value.startswith("["):
        return override
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        parsed = OverridesParser.create().parse_override(override)
        values = list(parsed.sweep_string_iterator()) if parsed.is_sweep_override() else [value]
    except HydraException as error:
        raise ConfigError(f"{override}: cannot be read: {str(error).splitlines()[0]}") from error
    return f"{key}=[{','.join('null' if v == 'all' else v for v in values)}]"


def compose_raw(
    name: str, overrides: Sequence[str], model: type[BaseModel], config_dir: str | None = None
) -> DictConfig:
    """What Hydra composes from configs/<name>.yaml, not yet checked against the types."""
    overrides = rewrite(overrides, config_dir)
    search = []
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError(f"--config-dir={config_dir}: no such folder")
        search = [f"hydra.searchpath=['file://{_escape(str(Path(config_dir).resolve()))}']"]
    try:
        GlobalHydra.instance().clear()
        with warnings.catch_warnings(), initialize_config_dir(str(CONFIGS), version_base="1.3"):
            warnings.simplefilter("ignore")
            return compose(name, overrides=[*overrides, *search])
    except Exception as error:
        raise hydra_fault(error, overrides, model) from error
    finally:
        GlobalHydra.instance().clear()


def rerun(path: Path, overrides: Sequence[str]) -> TrainConfig:
    """The configuration in a run's config.json, with plain `key=value` changes."""
    try:
        config = OmegaConf.create(with_later_keys(json.loads(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the config.json of a run") from None
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: not the config.json of a run: {' '.join(str(error).split())}") from None
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path}: not the config.json of a run: it holds no object")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"{override}: write it as key=value")
        if key == "run.name" and not any(other.startswith("run.dir=") for other in overrides):
            OmegaConf.update(config, "run.dir", f"runs/{value}")
        known = known_keys(TrainConfig)
        if key not in known:
            raise ConfigError(unknown_key(key, value, TrainConfig))
        if OmegaConf.is_dict(OmegaConf.select(config, key)):
            raise ConfigError(
                f"{override}: a group cannot be chosen on top of config.json; set its keys, as {key}.KEY=..."
            )
        OmegaConf.update(config, key, yaml.safe_load(value) if value else None)
    return finish(config, TrainConfig)


def finish(config: DictConfig, model: type[Config]) -> Config:
    """Resolves and validates a composed configuration. Raises ConfigFaults with one line for each fault."""
    with open_dict(config):
        if TASK_KEY in config:
            config["task"] = str(config.pop(TASK_KEY))
        _take_model_settings_of_run(config)
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigFaults([_omegaconf_fault(error)]) from error
    _find_model(values)
    missing = [key for key, value in _leaves(values) if value == "???"]
    if missing:
        raise ConfigFaults([f"{key}: has no value yet; give {key}=VALUE" for key in missing])
    assert isinstance(values, dict)
    try:
        found = model.model_validate_json(json.dumps(values, default=str))
        if isinstance(found, TrainConfig):  # as narrow as its method; the union of all gave the better faults
            narrow = config_of_run(found.method.kind)
            return cast(Config, narrow.model_validate_json(json.dumps(values, default=str)))
        return found
    except ValidationError as error:
        raise ConfigFaults(validation_faults(error, model)) from error


def rewrite(overrides: Sequence[str], config_dir: str | None = None) -> list[str]:
    """Overrides in Hydra's own terms: `task=` is a plain key, and `model=` takes a path or a hub name as well."""
    result: list[str] = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if override.startswith("-"):
            bare = override.lstrip("-")
            if close := difflib.get_close_matches(
                bare, ("multirun", "cfg", "resolve", "info", "config-dir", "json"), 1, 0.7
            ):
                raise ConfigError(f"{override}: unknown option; did you mean --{close[0]}?")
            raise ConfigError(
                f"{override}: unknown option; keys have no dashes: write {bare if '=' in bare else bare + '=VALUE'}"
            )
        if not equals and not override.startswith("~"):
            raise ConfigError(f"{override}: no value; write {override}=VALUE")
        if not key.lstrip("+~"):
            raise ConfigError(f"{override}: no key; write KEY=VALUE")
        if key in GROUP_KINDS:
            group = key.removesuffix(".kind")
            raise ConfigError(f"{override}: choose the group, {group}={value}, which sets what goes with it")
        if key.lstrip("+") == "task":
            result.append(f"+{TASK_KEY}={_quoted(value) if ',' not in value else value}")
        elif key == "model" and _is_path_or_hub_name(value, config_dir):
            result += ["model=custom", f"model.path={_quoted(value)}"]
        else:
            result.append(override)
    return result


def _is_path_or_hub_name(value: str, config_dir: str | None) -> bool:
    folders = [CONFIGS / "model"] + ([Path(config_dir) / "model"] if config_dir else [])
    if any((folder / f"{value}.yaml").is_file() for folder in folders) or "," in value:
        return False
    return "/" in value or value.startswith((".", "~")) or Path(value).is_dir()


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[A-Za-z0-9_./-]+", value) or value[:1] in "'\"" else f"'{_escape(value)}'"


def _take_model_settings_of_run(config: DictConfig) -> None:
    """`model=runs/demo` reads how that run used its model; only the path stays as given."""
    path = OmegaConf.select(config, "model.path", throw_on_missing=False)
    if not isinstance(path, str) or path == "???":
        return
    file = Path(path).expanduser() / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(values, dict) and "method" in values and isinstance(values.get("model"), dict):
        for key, value in values["model"].items():
            if key != "path":
                OmegaConf.update(config, f"model.{key}", value)


def _find_model(values: Any) -> None:
    """A path that is not there is looked for beside the configuration, so that the starter is found from any folder."""
    model = values.get("model") if isinstance(values, dict) else None
    path = model.get("path") if isinstance(model, dict) else None
    if isinstance(path, str) and not Path(path).expanduser().exists() and (ROOT / path).is_dir():
        values["model"]["path"] = str(ROOT / path)


def _leaves(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [
            leaf for key, item in value.items() for leaf in _leaves(item, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(value, list):
        return [leaf for index, item in enumerate(value) for leaf in _leaves(item, f"{prefix}.{index}")]
    return [(prefix, value)]


def _omegaconf_fault(error: OmegaConfBaseException) -> str:
    key = getattr(error, "full_key", None)
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{key}: {message}" if key else message


def hydra_fault(error: Exception, overrides: Sequence[str], model: type[BaseModel]) -> ConfigError:
    """The one line for what Hydra or the YAML reader raised."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        if isinstance(link, yaml.MarkedYAMLError):
            mark = link.problem_mark
            where = f"{Path(mark.name).name} line {mark.line + 1}" if mark else "a configuration file"
            return ConfigError(f"{where}: not valid YAML: {link.problem or link.context or 'cannot be read'}")
    if isinstance(error, OverrideParseException):
        override = error.override
        reason = str(error).replace("Error parsing override", "").splitlines()
        detail = next((line for line in reason if "override '" not in line and line.strip()), "")
        key = override.partition("=")[0]
        return ConfigError(f"{override}: cannot be read ({detail.strip()}); quote the value, as {key}=\"'VALUE'\"")
    text = str(error)
    if isinstance(error, MissingConfigException):
        return ConfigError(_missing_choice(error, text))
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1]
        value = next((o.partition("=")[2] for o in overrides if o.lstrip("+~").partition("=")[0] == key), None)
        if key in known_keys(model) and "defaults list" in text:
            return ConfigError(f"{key}={value}: not a group of this command; set its keys, as {key}.KEY=VALUE")
        if "defaults list" in text and (guess := nearest(key, list(known_keys(model)))):
            return ConfigError(f"{key}={value}: unknown group; did you mean {guess}?")
        return ConfigFaults([unknown_key(key, value, model)])
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return ConfigError(f"{match[1]}: several values; write [a,b] for a list, or add --multirun to run each of them")
    if isinstance(error, (HydraException, ConfigCompositionException, OmegaConfBaseException, ValueError)):
        return ConfigError(" ".join(text.split()))
    raise error


def _missing_choice(error: MissingConfigException, text: str) -> str:
    name = error.missing_cfg_file or ""
    if isinstance(name, str) and "/" in name:
        group, _, choice = name.partition("/")
        options = [str(option) for option in error.options or []]
        if not options and (CONFIGS / group).is_dir():
            options = choices(group)
        if options:
            line = choice_fault(group, choice, options)
            if group == "docs" and re.search(r"[./]", choice):
                line += f"; a file goes in docs=jsonl docs.path={choice}"
            if group == "model":
                line += ", or a folder (./NAME), or a hub name (ORG/NAME)"
            return line
    if match := re.search(r"Could not (?:find|load) '([^']+)'", text):
        return f"{match[1]}: no such configuration file"
    return " ".join(text.splitlines()[0].split())
