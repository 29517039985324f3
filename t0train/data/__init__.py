"""From tasks to rows: vocabulary, token store, order, packing, batches."""

from t0train.data.counts import Counts, refuse_faults, remarks
from t0train.data.loader import PackedLoader, RowStatistics, open_loader, open_task_tokens
from t0train.data.order import LoaderState, Order, RowPlan
from t0train.data.packing import pack
from t0train.data.prepare import Prepared, prepare, prepare_tasks
from t0train.data.rows import RowBatch, build_rows
from t0train.data.store import TaskTokens, open_folder, read_manifest, store_folder, verify_store
from t0train.data.vocabulary import Vocabulary, load_vocabulary, refuse_other_vocabulary

__all__ = [
    "Counts",
    "LoaderState",
    "Order",
    "PackedLoader",
    "Prepared",
    "RowBatch",
    "RowPlan",
    "RowStatistics",
    "TaskTokens",
    "Vocabulary",
    "build_rows",
    "load_vocabulary",
    "open_folder",
    "open_loader",
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
