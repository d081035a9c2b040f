from .machine import check_engines as check_engines
from .machine import compiles as compiles
from .machine import engines_of as engines_of
from .machine import on_this_machine as on_this_machine
from .registry import TASKS as TASKS
from .registry import Task as Task
from .setup import prepare_model as prepare_model
