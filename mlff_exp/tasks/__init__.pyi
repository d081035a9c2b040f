from .registry import TASKS as TASKS
from .registry import Task as Task
from .setup import prepare_model as prepare_model
