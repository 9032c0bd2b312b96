from .asking import check_report as check_report
from .exporting import write_figures as write_figures
from .gathering import gather as gather
from .writing import leave_report as leave_report
from .writing import write_report as write_report
