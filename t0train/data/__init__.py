"""From tasks to rows: vocabulary, token store, order, packing, batches."""

from t0train.data.counts import Counts, refuse_faults, remarks
from t0train.data.order import Order
from t0train.data.packing import pack
from t0train.data.plan import RowPlan, RowState
from t0train.data.prepare import Prepared, open_task_tokens, prepare, prepare_tasks
from t0train.data.rows import RowBatch, build_rows
from t0train.data.store import TaskTokens, open_folder, read_manifest, store_folder, verify_store
from t0train.data.stream import RowStatistics, RowStream, open_rows
from t0train.data.vocabulary import Vocabulary, load_vocabulary, refuse_other_vocabulary

__all__ = [
    "Counts",
    "Order",
    "Prepared",
    "RowBatch",
    "RowPlan",
    "RowState",
    "RowStatistics",
    "RowStream",
    "TaskTokens",
    "Vocabulary",
    "build_rows",
    "load_vocabulary",
    "open_folder",
    "open_rows",
    "open_task_tokens",
    "pack",
    "prepare",
    "prepare_tasks",
    "read_manifest",
    "refuse_faults",
    "refuse_other_vocabulary",
    "remarks",
    "store_folder",
    "verify_store",
]
