from . import models as models
from . import plugins as plugins
from . import presets as presets
from .api.fit import fit as fit
from .api.images import Animation as Animation
from .api.images import Images as Images
from .api.images import Picture as Picture
from .api.ledger import ledger as ledger
from .api.run import Report as Report
from .api.run import Run as Run
from .api.run import load as load
from .api.training import Callback as Callback
from .api.training import RunDiverged as RunDiverged
from .api.training import TrainingState as TrainingState
from .describe.step import Ledger as Ledger
from .errors import UserError as UserError
from .evaluation.show import Evaluation as Evaluation
from .recipe.preset import Preset as Preset
from .run.logs import Metrics as Metrics
from .run.logs import Vitals as Vitals

__version__: str
