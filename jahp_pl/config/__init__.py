"""All settings of an experiment, with defaults and valid ranges, as plain dataclasses.

`Config` has a field for each section; `settings.load_config` reads it from YAML files and the command line.

| section | module |
|---|---|
| `model` | `model`; `parts` has the names of densities and networks |
| `loss`, `data`, `optim`, `trainer` | `loss`, `data`, `optim`, `trainer` |
| `coding`, `wandb`, and settings outside any section | `experiment` |

`former_names` reads the names that settings had before, and `changes` finds settings that differ from a checkpoint's.

The string below each field documents it. Creating a dataclass with a value that is out of range raises a `ConfigError`
that names the setting.
"""

from jahp_pl.config.checks import ConfigError as ConfigError
from jahp_pl.config.checks import require as require
from jahp_pl.config.checks import require_type as require_type
from jahp_pl.config.data import DataConfig as DataConfig
from jahp_pl.config.experiment import CodingConfig as CodingConfig
from jahp_pl.config.experiment import Config as Config
from jahp_pl.config.experiment import WandbConfig as WandbConfig
from jahp_pl.config.experiment import to_dict as to_dict
from jahp_pl.config.former_names import current_name as current_name
from jahp_pl.config.former_names import with_current_names as with_current_names
from jahp_pl.config.loss import LossConfig as LossConfig
from jahp_pl.config.model import DensityName as DensityName
from jahp_pl.config.model import EntropyModelName as EntropyModelName
from jahp_pl.config.model import ModelConfig as ModelConfig
from jahp_pl.config.model import TransformName as TransformName
from jahp_pl.config.model import model_from_dict as model_from_dict
from jahp_pl.config.optim import OptimConfig as OptimConfig
from jahp_pl.config.parts import BUILT_IN as BUILT_IN
from jahp_pl.config.parts import PARTS as PARTS
from jahp_pl.config.parts import add_part as add_part
from jahp_pl.config.parts import find_part as find_part
from jahp_pl.config.trainer import TrainerConfig as TrainerConfig
